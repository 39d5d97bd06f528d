from __future__ import annotations

from pathlib import Path

import torch
from benchmarks.inputs import random_esm2
from benchmarks.measurements.bench_eight_bits import FORMATS, e4m3_rows, int8_rows, rotated_int8_rows, rounded
from benchmarks.pages.parity_page import parity_page

from virnucpro.data.tokens import tokenise

HEAD = "model,weights,format,products,share_of_products,sequences,pooled_cosine_min,data,device,torch,cuda,commit\n"
LINE = "650M,random,{},{},{},40,{},viruses_sprot.fasta,NVIDIA H100,2.11.0,13.0,abc1234\n"


def test_steps_of_the_formats() -> None:
    row = torch.tensor([[448.0, 17.0, 1.06, 0.0], [-254.0, 0.9, 3.1, 2.0]])
    torch.testing.assert_close(e4m3_rows(row)[0], torch.tensor([448.0, 16.0, 1.0, 0.0]))
    torch.testing.assert_close(int8_rows(row)[1], torch.tensor([-254.0, 0.0, 4.0, 2.0]))


def test_turning_spreads_an_outlying_channel() -> None:
    rows = torch.randn(20, 64, generator=torch.Generator().manual_seed(0))
    rows[:, 5] *= 100
    error = lambda kind: float((kind(rows) - rows)[:, :5].norm())  # noqa: E731
    assert error(rotated_int8_rows) < 0.5 * error(int8_rows)


def test_only_the_named_projections_are_rounded_and_all_is_put_back() -> None:
    model = random_esm2("8M", torch.device("cpu"))
    ids = torch.from_numpy(tokenise("MKVLATWERSGQ" * 4))[None]
    with torch.no_grad():
        states = lambda: model(ids, repr_layers=[6])["representations"][6]  # noqa: E731
        exact = states()
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for kind in FORMATS.values():
            with rounded(model, ("fc1",), kind):
                changed = {
                    name for name, tensor in model.state_dict().items() if not torch.equal(tensor, weights[name])
                }
                assert changed == {f"layers.{layer}.fc1.weight" for layer in range(6)}
                one = (states() - exact).norm()
            with rounded(model, ("fc1", "fc2", "v_proj"), kind):
                assert 0 < one < (states() - exact).norm()
        assert torch.equal(states(), exact)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


def test_the_page_says_which_choices_reach_the_bound(tmp_path: Path) -> None:
    figures = [("e4m3", "fc1", 1 / 3, 0.9971), ("int8", "fc1", 1 / 3, 0.9993), ("e4m3", "q_proj k_proj", 1 / 6, 0.99)]
    (tmp_path / "eight-bits-650M.csv").write_text(HEAD + "".join(LINE.format(*figure) for figure in figures))
    page = parity_page(tmp_path)
    assert "| fc1 | 33.3 % | 0.9971000 | 0.9993000 |" in page
    assert "| q, k | 16.7 % | 0.9900000 | - |" in page
    assert "At 0.999 or more: int8 in fc1." in page
