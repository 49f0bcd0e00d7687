#!/usr/bin/env python3
"""Trains the two models of the demo on the 8x8 digits set that ships with scikit-learn, and picks one sample of each digit.

    pip install scikit-learn
    python3 train.py

Softmax regression: 64 pixels, 10 digits, 650 weights. A model file has one line for each digit: its bias, then a weight
for each pixel, for pixels scaled to 0..1. The split is fixed, so running this again gives the same files.
"""

from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
# v1 saw little and is held back; v3 is what v1 should have been. (v2 is v3's file cut short: see the tests' images.)
MODELS = {"v1": (300, 0.05), "v3": (1347, 1.0)}


def main():
    digits = load_digits()
    pixels, held_out, labels, truth = train_test_split(
        digits.data / 16, digits.target, test_size=450, random_state=7, stratify=digits.target
    )
    predictions = []
    for name, (examples, strength) in MODELS.items():
        model = LogisticRegression(C=strength, max_iter=1000).fit(pixels[:examples], labels[:examples])
        lines = (
            " ".join(f"{weight:.5f}" for weight in [bias, *weights])
            for bias, weights in zip(model.intercept_, model.coef_)
        )
        (HERE / "models" / f"{name}.txt").write_text("\n".join(lines) + "\n")
        predictions.append(model.predict(held_out))
        print(f"{name}: {model.score(held_out, truth):.1%} of {len(truth)} digits it has not seen")

    with (HERE / "samples.txt").open("w") as samples:
        for digit in range(10):
            right = (i for i, label in enumerate(truth) if label == digit and all(p[i] == digit for p in predictions))
            pixels = (held_out[next(right)] * 16).astype(int)
            print(digit, *pixels, file=samples)


if __name__ == "__main__":
    main()
