"""A service that reads handwritten digits: a class serves the model, and a schedule trains a better one every night.

Deploy it, and use it from any other program, such as examples/digits_client.py:

    modal secret create digits-access ACCESS_KEY=open-sesame
    modal deploy examples/digits_service.py
    python examples/digits_client.py open-sesame

The night's training can be tried at once: modal run examples/digits_service.py::retrain
"""

import hmac
import os
import time

import modal

image = modal.Image.debian_slim().pip_install("scikit-learn")
app = modal.App("digits", image=image)
access = modal.Secret.from_name("digits-access", required_keys=["ACCESS_KEY"])
models = modal.Dict.from_name("digits-models", create_if_missing=True)

with image.imports():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC


def train(strength: float) -> dict:
    """Train with one parameter; the model comes with its accuracy on digits that it has not seen."""
    digits = load_digits()
    known, unseen, answers, right = train_test_split(digits.data, digits.target, test_size=0.25, random_state=0)
    model = make_pipeline(StandardScaler(), SVC(C=strength)).fit(known, answers)
    return {"model": model, "accuracy": float(model.score(unseen, right)), "trained_at": time.time()}


@app.function(schedule=modal.Cron("0 3 * * *"), cpu=1.0, timeout=900, retries=2)
def retrain(candidates: int = 4) -> float:
    """Every night at 3:00 UTC: train several models and keep the best, unless the present one is better still."""
    best = max((train(10.0**power) for power in range(candidates)), key=lambda one: one["accuracy"])
    if best["accuracy"] >= models.get("current", {"accuracy": 0.0})["accuracy"]:
        models["current"] = best
    print(f"The best of {candidates} models is right for {best['accuracy']:.1%} of the digits.")
    return best["accuracy"]


@app.cls(secrets=[access], container_idle_timeout=300)
class Reader:
    """Reads digits with the best model so far; one that was trained meanwhile is found by the next container."""

    @modal.enter()
    def load(self):
        self.current = models.get("current") or train(1.0)

    @modal.method()
    def read(self, images: list[list[int]], access_key: str) -> list[int]:
        """Say which digits these are. An image is 64 numbers, from 0 (white) to 16 (black), row by row."""
        if not hmac.compare_digest(access_key, os.environ["ACCESS_KEY"]):
            raise PermissionError("The access key is wrong.")
        return [int(digit) for digit in self.current["model"].predict(images)]

    @modal.method()
    def accuracy(self) -> float:
        return self.current["accuracy"]
