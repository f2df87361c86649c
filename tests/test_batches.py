"The fast indexing of batches against plain loops, on many small random cases."
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matchbook.batches import Ragged, Table, check_offsets, derive_seed, order_by_length, whole_folder

settings.register_profile("no deadline", deadline=None)   # a busy machine is not a failure
settings.load_profile("no deadline")
lists = st.lists(st.lists(st.integers(-9, 9), max_size=6), max_size=8)


def ragged_of(sequences): return Ragged.from_list([torch.tensor(s, dtype=torch.float32) for s in sequences])


def as_lists(ragged): return [sequence.tolist() for sequence in ragged]


@st.composite
def lists_and_rows(draw):
    sequences = draw(lists.filter(len))
    n = len(sequences)
    return sequences, draw(st.lists(st.integers(-n, n - 1), max_size=12))


@given(lists)
def test_ragged_is_the_list_it_was_made_from(sequences):
    ragged = ragged_of(sequences)
    assert as_lists(ragged) == sequences
    assert ragged.lengths.tolist() == [len(s) for s in sequences]
    assert len(ragged) == len(sequences)


@given(lists_and_rows())
def test_picking_rows_is_picking_from_the_list(case):
    sequences, rows = case
    ragged, wanted = ragged_of(sequences), [sequences[row] for row in rows]
    for index in (rows, np.array(rows, dtype=np.int64), torch.tensor(rows, dtype=torch.int32)):
        assert as_lists(ragged[index]) == wanted
    for row in rows: assert ragged[row].tolist() == sequences[row] == ragged[np.int64(row)].tolist()


@given(lists, st.slices(8))
def test_slices_are_slices_of_the_list(sequences, rows):
    assert as_lists(ragged_of(sequences)[rows]) == sequences[rows]


@given(lists.filter(len), st.data())
def test_masks_keep_what_is_true(sequences, data):
    mask = data.draw(st.lists(st.booleans(), min_size=len(sequences), max_size=len(sequences)))
    wanted = [s for s, keep in zip(sequences, mask) if keep]
    assert as_lists(ragged_of(sequences)[torch.tensor(mask)]) == wanted


@given(lists, st.none() | st.integers(0, 8))
def test_padded_against_a_loop(sequences, length):
    cells, mask = ragged_of(sequences).padded(pad=-99, length=length)
    width = max(map(len, sequences), default=0) if length is None else length
    assert cells.shape == mask.shape == (len(sequences), width)
    for i, sequence in enumerate(sequences):
        for j in range(width):
            real = j < len(sequence)
            assert mask[i, j] == real
            assert cells[i, j] == (sequence[j] if real else -99)


@given(lists)
def test_mean_against_a_loop(sequences):
    wanted = [sum(s) / len(s) if s else 0. for s in sequences]
    assert torch.allclose(ragged_of(sequences).mean(), torch.tensor(wanted))


@given(lists_and_rows())
def test_a_mean_does_not_depend_on_the_other_rows(case):
    sequences, rows = case
    chance = torch.Generator().manual_seed(len(sequences))
    offsets = np.cumsum([0, *map(len, sequences)])
    ragged = Ragged(torch.randn(int(offsets[-1]), 3, generator=chance), offsets)
    assert torch.equal(ragged[rows].mean(), ragged.mean()[rows])   # to the bit


def test_mean_has_a_gradient_and_keeps_trailing_shape():
    values = torch.randn(5, 2, 3, requires_grad=True)
    ragged = Ragged(values, [0, 2, 2, 5])
    assert ragged.mean().shape == (3, 2, 3)
    ragged.mean().sum().backward()
    assert torch.allclose(values.grad[:, 0, 0], torch.tensor([1/2, 1/2, 1/3, 1/3, 1/3]))


@given(st.lists(lists, min_size=1, max_size=4))
def test_concat_is_list_addition(parts):
    assert as_lists(Ragged.concat([ragged_of(part) for part in parts])) == sum(parts, [])


@given(st.lists(st.integers(-2, 5), min_size=1, max_size=6), st.integers(0, 6))
def test_offsets_are_refused_exactly_when_wrong(offsets, total):
    right = offsets[0] == 0 and offsets[-1] == total and all(a <= b for a, b in zip(offsets, offsets[1:]))
    if right: assert check_offsets(offsets, total).tolist() == offsets
    else:
        with pytest.raises(ValueError, match="offsets: "): check_offsets(offsets, total)


@settings(max_examples=25)
@given(lists)
def test_saving_and_opening_changes_nothing(tmp_path_factory, sequences):
    folder, ragged = tmp_path_factory.mktemp("ragged") / "r", ragged_of(sequences)
    ragged.save(folder)
    for mmap in (True, False): assert as_lists(Ragged.open(folder, mmap=mmap)) == sequences
    Ragged.open(folder).save(folder)   # over the file it is mapped from
    assert as_lists(Ragged.open(folder)) == sequences


def test_a_big_file_is_read_in_bounded_memory(tmp_path):
    "Batches from a 200 MB file, in a process that may not hold 200 MB more of its own."
    np.save(tmp_path / "values.npy", np.zeros((500_000, 100), np.float32))
    np.save(tmp_path / "offsets.npy", np.arange(0, 500_001, 50))
    code = """
import resource, sys, torch
from matchbook.batches import Ragged, Table

def private():   # kilobytes that are this process's own, not pages of a file
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("RssAnon")))

before, most, seen = private(), 0, 0
table = Table({"talk": Ragged.open(sys.argv[1])})
for batch in table.batches(64, seed=0):
    seen += len(batch["talk"].values)
    most = max(most, private() - before)
assert seen == 500_000, seen
print(most // 1024)
"""
    if sys.platform != "linux": pytest.skip("reads /proc")
    out = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert int(out.stdout) < 40, f"{out.stdout} MB"


def test_neighbours_are_views_and_a_table_is_never_copied():
    ragged = Ragged(torch.arange(10), [0, 3, 3, 10])
    assert ragged[2].data_ptr() == ragged[2:].values.data_ptr() == ragged.values[3:].data_ptr()
    table = Table({"x": torch.zeros(100, 8), "r": Ragged(torch.zeros(100), torch.arange(101))})
    for batch in table.batches(10):
        assert batch["x"].untyped_storage().data_ptr() == table["x"].untyped_storage().data_ptr()
        ours, theirs = batch["r"].values.untyped_storage(), table["r"].values.untyped_storage()
        assert ours.data_ptr() == theirs.data_ptr()


@given(st.integers(0, 60), st.integers(1, 9), st.none() | st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_every_row_once(n, size, seed, epoch, drop_last):
    twice = Ragged(torch.arange(n).repeat_interleave(2), torch.arange(n + 1) * 2)
    table = Table({"row": torch.arange(n), "twice": twice})
    batches = table.batches(size, seed=seed, epoch=epoch, drop_last=drop_last)
    rows = [batch["row"].tolist() for batch in batches]
    assert len(batches) == len(rows) == (n // size if drop_last else -(-n // size))
    assert all(len(batch) == size for batch in rows[:len(rows) if drop_last else -1])
    flat = sum(rows, [])
    assert len(set(flat)) == len(flat) and (drop_last or sorted(flat) == list(range(n)))
    for batch in batches:   # columns stay side by side
        assert [pair.tolist() for pair in batch["twice"]] == [[row, row] for row in batch["row"].tolist()]


def test_epochs_differ_and_can_be_made_again_alone():
    table = Table({"row": torch.arange(50)})
    def order(seed, epoch):
        return sum((batch["row"].tolist() for batch in table.batches(8, seed=seed, epoch=epoch)), [])
    orders = {(seed, epoch): order(seed, epoch) for seed in range(5) for epoch in range(5)}
    assert len(set(map(tuple, orders.values()))) == 25
    torch.manual_seed(1)
    assert order(3, 4) == orders[3, 4]                     # whatever the global generator says
    state = torch.get_rng_state()
    order(0, 0)
    assert torch.equal(torch.get_rng_state(), state)      # and it is not touched


def padding(lengths, batches): return sum(len(rows) * max(lengths[row] for row in rows) for rows in batches)


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 8), st.none() | st.integers(0, 9),
       st.integers(1, 4))
def test_batches_by_length_against_a_loop(lengths, size, seed, pool):
    chance = None if seed is None else torch.Generator().manual_seed(seed)
    drawn = order_by_length(torch.tensor(lengths, dtype=torch.long), size, chance, pool)
    batches = [rows.tolist() for rows in drawn]
    assert sorted(sum(batches, [])) == list(range(len(lengths)))           # every row exactly once
    assert sum(len(rows) < size for rows in batches) <= 1                  # at most one short batch
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    least = padding(lengths, [order[i:i + size] for i in range(0, len(order), size)])
    if seed is None or len(lengths) <= size * pool: assert padding(lengths, batches) == least
    for rows in batches: assert [lengths[row] for row in rows] == sorted(lengths[row] for row in rows)


def test_batches_by_length_pad_far_less_than_shuffled_ones_and_still_mix():
    lengths = torch.randint(1, 100, (4000,), generator=torch.Generator().manual_seed(0))
    table = Table({"row": torch.arange(4000), "length": lengths})
    def drawn(epoch):
        return [b["row"].tolist() for b in table.batches_by_length("length", 16, seed=0, epoch=epoch)]
    shuffled = [b["row"].tolist() for b in table.batches(16, seed=0)]
    plain = lengths.tolist()
    assert padding(plain, drawn(0)) < 1.05 * sum(plain) < .7 * padding(plain, shuffled)
    assert drawn(3) == drawn(3)
    assert not set(map(frozenset, drawn(0))) & set(map(frozenset, drawn(1)))    # new company each epoch
    longest = [max(plain[row] for row in rows) for rows in drawn(0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < .2   # no order of length


def test_seeds_do_not_collide():
    assert len({derive_seed(a, b, c) for a in range(10) for b in range(10) for c in range(10)}) == 1000
    assert derive_seed(1) != derive_seed(1, 0)


def test_a_folder_is_whole_or_not_there(tmp_path):
    with pytest.raises(RuntimeError):
        with whole_folder(tmp_path / "f") as part:
            (part / "a").write_text("x")
            raise RuntimeError
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(ValueError, match="holds 'diary.txt' too"):
        Ragged(torch.zeros(2), [0, 2]).save(tmp_path / "mine")
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear diary"


@pytest.mark.parametrize("bad, says", [
    (lambda: Ragged(torch.zeros(3), [0, 2, 1, 3]), "fall from 2 to 1 at sequence 1"),
    (lambda: Ragged(torch.zeros(3), [0, 2]), "end at 2, but there are 3 values"),
    (lambda: Ragged(torch.tensor(3.), [0]), "at least one dimension"),
    (lambda: Ragged(torch.zeros(3), [0, 3])[[True, False]], "wanted 1 truths"),
    (lambda: Ragged(torch.zeros(3), [0, 3])[[[0]]], "wanted a row of positions"),
    (lambda: Table({"a": torch.tensor(1.)}), "got one number"),
    (lambda: Table({"a": [0, 0], "b": Ragged(torch.zeros(3), [0, 3])}), "'b' has 1 rows, but 'a' has 2"),
    (lambda: Table({"a": torch.zeros(2)}).batches(0), "at least one row"),
    (lambda: Ragged(torch.zeros(1).bfloat16(), [0, 1]).save("never"), "no bfloat16"),
])
def test_wrong_input_says_what_is_wrong(bad, says):
    with pytest.raises(ValueError, match=says): bad()


def test_a_row_out_of_range_is_an_index_error():
    for rows in (3, -4, [0, 3]):
        with pytest.raises(IndexError, match="but there are 3"): Ragged(torch.zeros(3), [0, 1, 2, 3])[rows]


def test_tables_unpack_and_move():
    table = Table({"a": [1., 2.], "b": Ragged(torch.zeros(3), [0, 1, 3])})
    assert dict(**table).keys() == {"a", "b"} and list(table) == ["a", "b"] and "a" in table
    assert isinstance(table.to("cpu")["b"], Ragged)
    with pytest.raises(AttributeError): table.columns = {}
