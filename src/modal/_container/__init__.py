"""The runtime inside a container: it loads the user's code and runs inputs.

It speaks to the agent in the frames of `modal._wire.messages.runner`, as plain header dicts: building dataclasses costs
more time at start than the whole first exchange, and time for every input.
"""
