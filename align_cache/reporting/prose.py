"""What the page says about each section: how to read it, in a few plain sentences."""

RETRIEVAL = (
    "Given an image, is the first caption found one of its own? Given a caption, is the first image found"
    " the right one? Chance is what a random order would give."
)
ALIGNMENT = (
    "How far two representations agree on which items are alike. Mutual k-NN is the share of nearest"
    " neighbours that they have in common; CKA compares all similarities at once. The aligned embedding is"
    " the unit-norm mean of an image's and its caption's embeddings. A permutation null says what a metric"
    " gives once one side's items are shuffled: calibrated, 0 is no more than that and 1 the most there is."
)
HYPOTHESES = (
    "H1: the aligned embedding agrees with the reference better than image and text do on average. H2: better"
    " than the better of the two. Both are asked against the adapters' embeddings and against the frozen"
    " features."
)
TRAINING = (
    "The dotted line marks the checkpoint that is evaluated. A variance term whose share of the loss is close"
    " to zero does nothing, whatever its weight."
)
SPACE = (
    "Drag to turn, use the slider to step through the epochs. One set of principal axes serves all epochs, so"
    " every motion is real. The reference has a space of its own: its three leading components are shown,"
    " turned as a rigid body onto the aligned points of the last epoch."
)
STRESS = (
    "The same pairs, judged again with noise on the images, the captions or their features. Noise on images"
    " and captions was put on before the frozen encoders read them. docs/noise.md says what each level is."
)
PROBE = (
    "A classifier trained on frozen rows. Where embeddings score much below the features that they were made"
    " from, the adapter has thrown something away."
)
ZERO_SHOT = (
    "Nothing more is trained: an image belongs to the class whose prompts, sentences with its name, lie"
    " nearest to it on average. A prompt alone shows what its wording is worth."
)
CURVES = (
    "Each group's runs, validated after every epoch, with the other groups in grey behind them. The panels of"
    " one quantity share their axes."
)
FINAL_VALUES = (
    "The evaluated checkpoints. A margin above zero, the grey line, speaks for its hypothesis. Groups whose"
    " bars overlap may still differ: paired by seed, two of them are compared more sharply."
)
UNTRAINED = "Random weights; the numbers show that the machinery works, not more."
