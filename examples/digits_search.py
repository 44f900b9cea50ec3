"""Search the parameters of a support vector classifier on scikit-learn's handwritten digits.

Each setting is cross-validated in its own call, so the search spreads over as many containers as there is room for.

Run it with: modal run examples/digits_search.py --max-models 24
"""

import itertools
import time

import modal

image = modal.Image.debian_slim().pip_install("scikit-learn")
app = modal.App("digits-search", image=image)

with image.imports():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC


@app.function(cpu=1.0, timeout=600)
def evaluate(setting: dict) -> tuple[dict, float, float]:
    """Return the setting, its mean accuracy over five folds, and the seconds that took."""
    started = time.monotonic()
    digits = load_digits()
    model = make_pipeline(StandardScaler(), SVC(**setting))
    scores = cross_val_score(model, digits.data, digits.target, cv=5)
    return setting, float(scores.mean()), time.monotonic() - started


def grid() -> list[dict]:
    values = itertools.product((0.1, 1.0, 3.0, 10.0, 30.0, 100.0), (0.003, 0.01, 0.03, 0.1))
    return [{"C": c, "gamma": gamma} for c, gamma in values]


@app.local_entrypoint()
def main(max_models: int = 24):
    settings = grid()[:max_models]
    print(f"Cross-validating {len(settings)} settings on the digits data set.")
    best, best_score = None, 0.0
    for setting, score, seconds in evaluate.map(settings, order_outputs=False):
        print(f"  C={setting['C']:<6g} gamma={setting['gamma']:<6g} accuracy {score:.4f}  ({seconds:.1f} s)")
        if score > best_score:
            best, best_score = setting, score
    print(f"Best: {best} with accuracy {best_score:.4f}")
