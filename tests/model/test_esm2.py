"""The packed network against fair-esm in fp32, and what packing must not change."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from esm2_reference import (
    SHARP_LOGITS,
    Pack,
    attention_logits,
    encode,
    packed_states,
    random_sequence,
    reference_states,
    relative_error,
    sharp_esm2,
)

from virnucpro.errors import ModelError, UsageError
from virnucpro.model.esm2 import PackedEsm2
from virnucpro.model.parameters import RotaryTable, inv_freq_key, trained_inv_freq
from virnucpro.model.registry import Esm2Config

LENGTHS = (40, 1, 300, 2, 17, 2, 1, 90)


def sequences(seed: int = 1, lengths: tuple[int, ...] = LENGTHS) -> list[str]:
    rng = random.Random(seed)
    return [random_sequence(length, rng) for length in lengths]


def test_reference_models_have_sharp_attention() -> None:
    spreads = [float(logits.std()) for logits in attention_logits(sharp_esm2(), encode("MKTAYIAKQR" * 12))]
    assert spreads == pytest.approx([SHARP_LOGITS] * 2, rel=0.3)


@pytest.mark.parametrize(("dim", "heads"), [(64, 4), (96, 4), (64, 2), (128, 2), (256, 2)])
def test_every_layer_of_every_head_dimension_agrees_with_fair_esm(dim: int, heads: int) -> None:
    reference = sharp_esm2(layers=3, dim=dim, heads=heads, seed=dim)
    proteins = sequences()
    layers = (0, 1, 2, 3)
    ours = packed_states(PackedEsm2.from_fair_esm(reference), proteins, layers)
    for protein, states in zip(proteins, ours, strict=True):
        expected = reference_states(reference, protein, layers)
        for layer in layers:
            assert relative_error(states[layer], expected[layer]) <= 2e-5, (len(protein), layer)


def test_embedding_layer_is_exact() -> None:
    reference = sharp_esm2()
    protein = sequences()[0]
    (ours,) = packed_states(PackedEsm2.from_fair_esm(reference), [protein], (0,))
    assert torch.equal(ours[0], reference_states(reference, protein, (0,))[0])


def test_one_pack_gives_the_same_bits_each_time_and_asked_for_layers_do_not_matter() -> None:
    model = PackedEsm2.from_fair_esm(sharp_esm2(layers=3))
    pack = Pack.of(sequences())
    whole = model.forward(pack.ids, pack.cu_seqlens, pack.positions, pack.max_seqlen, (0, 1, 2, 3))
    assert sorted(whole) == [0, 1, 2, 3]
    for layer, states in whole.items():
        alone = model.forward(pack.ids, pack.cu_seqlens, pack.positions, pack.max_seqlen, (layer,))
        assert list(alone) == [layer]
        assert torch.equal(alone[layer], states)


def test_no_layer_is_computed_above_the_highest_asked_for() -> None:
    whole = PackedEsm2.from_fair_esm(sharp_esm2(layers=3))
    called: list[int] = []

    class Counted:
        def __init__(self, number: int, layer: Any) -> None:
            self.number, self.layer = number, layer

        def __getattr__(self, name: str) -> Any:
            return getattr(self.layer, name)

        def __call__(self, *arguments: Any) -> Any:
            called.append(self.number)
            return self.layer(*arguments)

    layers = [Counted(number, layer) for number, layer in enumerate(whole._layers, start=1)]
    model = PackedEsm2(whole.config, "fp32", whole._embedding, layers, whole._final_norm)
    for asked, computed in (((0,), []), ((1,), [1]), ((2, 0), [1, 2]), ((1, 3), [1, 2, 3])):
        called.clear()
        packed_states(model, ["MKTAY"], asked)
        assert called == computed


def test_a_sequence_does_not_see_its_neighbours() -> None:
    model = PackedEsm2.from_fair_esm(sharp_esm2())
    proteins = sequences()
    order = random.Random(7).sample(range(len(proteins)), len(proteins))
    shuffled = packed_states(model, [proteins[index] for index in order], (2,))
    for index, states in zip(order, shuffled, strict=True):
        (alone,) = packed_states(model, [proteins[index]], (2,))
        assert relative_error(states[2], alone[2]) <= 2e-6


def test_masked_tokens_rescale_their_own_sequence_only() -> None:
    reference = sharp_esm2()
    proteins = ["MKT#AYIAKQR", "GAVLK", "##W", "MKTAYIAKQRQISFVKSHFSRQ#"]
    model = PackedEsm2.from_fair_esm(reference)
    for protein, states in zip(proteins, packed_states(model, proteins, (0, 2)), strict=True):
        expected = reference_states(reference, protein, (0, 2))
        assert torch.equal(states[0], expected[0])
        assert relative_error(states[2], expected[2]) <= 2e-5


def test_caller_may_say_whether_masks_occur() -> None:
    model = PackedEsm2.from_fair_esm(sharp_esm2())
    for protein, masked in (("MK#AY", True), ("MKTAY", True), ("MKTAY", False)):
        pack = Pack.of([protein])
        told = model.forward(pack.ids, pack.cu_seqlens, pack.positions, pack.max_seqlen, (2,), masked=masked)
        (looked,) = packed_states(model, [protein], (2,))
        assert torch.equal(told[2], looked[2])


def test_model_trained_without_token_dropout_is_not_rescaled() -> None:
    reference = sharp_esm2()
    reference.token_dropout = False
    model = PackedEsm2.from_fair_esm(reference)
    for protein in ("MKTAY", "MK#AY"):
        (states,) = packed_states(model, [protein], (0, 2))
        expected = reference_states(reference, protein, (0, 2))
        assert torch.equal(states[0], expected[0])
        assert relative_error(states[2], expected[2]) <= 2e-5


@pytest.mark.parametrize("layers", [(), (3,), (-1,), (0, 5)])
def test_layers_that_do_not_exist_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="0 to 2"):
        packed_states(PackedEsm2.from_fair_esm(sharp_esm2()), ["MK"], layers)


def test_rotary_table_holds_fp32_angles_of_the_checkpoints_frequencies() -> None:
    inv_freq = trained_inv_freq(64)
    assert torch.equal(inv_freq, inv_freq.half().float())
    recomputed = 1.0 / (10000 ** (torch.arange(0, 64, 2, dtype=torch.float32) / 64))
    assert not torch.equal(inv_freq, recomputed)
    cos_PH, sin_PH = RotaryTable(inv_freq.half()).up_to(1024)
    assert cos_PH.dtype == sin_PH.dtype == torch.float32
    for position in (0, 1, 255, 256, 257, 400, 1023):
        angles = [float(torch.tensor(float(position)) * frequency) for frequency in inv_freq]
        assert cos_PH[position].tolist() == pytest.approx([math.cos(angle) for angle in angles], abs=1e-7)
        assert sin_PH[position].tolist() == pytest.approx([math.sin(angle) for angle in angles], abs=1e-7)


def test_rotary_positions_beyond_256_stay_apart() -> None:
    cos_PH, sin_PH = RotaryTable(trained_inv_freq(64)).up_to(2000)
    rows = torch.cat((cos_PH, sin_PH), dim=1)
    assert torch.cdist(rows[250:1100], rows[250:1100]).fill_diagonal_(1.0).min() > 0.1


def test_rotary_table_grows_without_changing() -> None:
    table = RotaryTable(trained_inv_freq(24))
    early = [part.clone() for part in table.up_to(10)]
    late = table.up_to(5000)
    assert late[0].shape == (8192, 12)
    for before, after in zip(early, late, strict=True):
        assert torch.equal(before, after[: len(before)])


def test_layers_may_have_rotary_frequencies_of_their_own() -> None:
    reference = sharp_esm2(layers=2)
    reference.layers[1].self_attn.rot_emb.inv_freq = trained_inv_freq(16) * 1.5
    protein = sequences()[2]
    (states,) = packed_states(PackedEsm2.from_fair_esm(reference), [protein], (2,))
    assert relative_error(states[2], reference_states(reference, protein, (2,))[2]) <= 2e-5


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 3e-3), ("bf16", 3e-2)])
def test_sixteen_bit_precisions_keep_norms_and_rotary_in_fp32(precision: str, limit: float) -> None:
    reference = sharp_esm2()
    model = PackedEsm2.from_fair_esm(reference, precision=precision)
    assert model.precision == precision
    protein = sequences()[2]
    (states,) = packed_states(model, [protein], (0, 1, 2))
    assert [states[layer].dtype for layer in (0, 1, 2)] == [model.dtype, model.dtype, torch.float32]
    ours = states[2].float().mean(0)
    expected = reference_states(reference, protein, (2,))[2].mean(0)
    assert float((ours - expected).norm() / expected.norm()) <= limit


def test_cast_fair_esm_model_keeps_its_precision_and_its_frequencies() -> None:
    protein = sequences()[2]
    for cast, precision in ((torch.float16, "fp16"), (torch.bfloat16, "bf16")):
        reference = sharp_esm2()
        (whole,) = packed_states(PackedEsm2.from_fair_esm(reference, precision=precision), [protein], (2,))
        repacked = PackedEsm2.from_fair_esm(reference.to(cast))
        assert repacked.precision == precision
        (states,) = packed_states(repacked, [protein], (2,))
        # The cast model's LayerNorm parameters are rounded too; nothing else may differ.
        assert relative_error(states[2], whole[2]) <= 0.1


def test_frequencies_spoilt_by_bf16_are_refused() -> None:
    reference = sharp_esm2()
    reference.layers[0].self_attn.rot_emb.inv_freq = trained_inv_freq(16) * 1.5
    with pytest.raises(ModelError, match="rounded to bf16"):
        PackedEsm2.from_fair_esm(reference.bfloat16())


def test_repacked_model_shares_no_memory_with_its_source() -> None:
    reference = sharp_esm2()
    model = PackedEsm2.from_fair_esm(reference)
    (before,) = packed_states(model, ["MKTAYIAK"], (2,))
    for parameter in reference.parameters():
        parameter.zero_()
    (after,) = packed_states(model, ["MKTAYIAK"], (2,))
    assert torch.equal(before[2], after[2])


def test_precisions_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="fp16, bf16, fp32"):
        PackedEsm2.from_state(Esm2Config("tiny", 1, 32, 2), {}, "fp12", "cpu")
    with pytest.raises(UsageError, match="float64"):
        PackedEsm2.from_fair_esm(sharp_esm2().double())


def test_state_without_a_layer_is_an_error_at_once() -> None:
    state = dict(sharp_esm2().state_dict())
    del state[inv_freq_key(1)]
    with pytest.raises(KeyError, match=r"layers\.1"):
        PackedEsm2.from_state(Esm2Config("tiny", 2, 64, 4), state, "fp32", "cpu")


def test_attention_on_the_cpu_is_named() -> None:
    assert PackedEsm2.from_fair_esm(sharp_esm2(layers=1)).attention_backend == "sdpa"
