"""The six open questions on foundation models (arXiv:2606.07327), in the order of a sheet."""

from __future__ import annotations

QUESTIONS = {
    1: "What is the least that makes a foundation model?",
    2: "More data, better data, better models?",
    3: "Long range?",
    4: "New physics?",
    5: "Scale to useful simulations?",
    6: "How do we know that it is any good?",
}
