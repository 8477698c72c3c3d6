"""How calls become named leaves, and what makes two calls the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch_geometric.nn as gnn
from torch import Tensor
from torch_geometric import EdgeIndex
from torch_geometric.data import Batch, Data, HeteroData

from pyg_fullgraph.capture import bind, module_fingerprint
from pyg_fullgraph.errors import CaptureError, InputError

N, E = 5, 9
X = torch.randn(N, 16)
EDGES = torch.randint(0, N, (2, E))


class Any_(torch.nn.Module):
    """Takes whatever a test passes."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.forward = forward


def dims_of(model: torch.nn.Module, *args: Any, **kwargs: Any) -> dict[str, tuple[int | str, ...]]:
    signature, tensors = bind(model, args, kwargs)
    assert len(tensors) == len(signature.leaves)
    for leaf, tensor in zip(signature.leaves, tensors, strict=True):
        assert leaf.dtype == tensor.dtype and type(tensor) is Tensor
    return {leaf.name: leaf.dims for leaf in signature.leaves}


def test_nodes_and_edges() -> None:
    model = gnn.GATConv(16, 8, edge_dim=3)
    assert dims_of(model, X, EDGES, torch.rand(E, 3)) == {
        "x": ("N", 16),
        "edge_index": (2, "E"),
        "edge_attr": ("E", 3),
    }


def test_names_decide_when_nodes_equal_edges() -> None:
    model = gnn.GCN(16, 8, 2)
    x = torch.randn(E, 16)
    small, _ = bind(model, (X, EDGES), {"edge_weight": torch.rand(E)})
    equal, _ = bind(model, (x, EDGES), {"edge_weight": torch.rand(E)})
    assert small.key == equal.key and hash(small.key) == hash(equal.key)


def test_unknown_names_follow_sizes_then_the_earlier_call() -> None:
    model = Any_(lambda x, edge_index, w: x)
    first, _ = bind(model, (X, EDGES, torch.rand(E)), {})
    assert first.leaves[2].dims == ("E",)
    ambiguous = (torch.randn(E, 16), EDGES, torch.rand(E))
    assert bind(model, ambiguous, {})[0].leaves[2].dims == ("N",)
    assert bind(model, ambiguous, {}, like=first)[0].key == first.key
    assert bind(model, ambiguous, {}, dims={"w": ("E",)})[0].key == first.key


@pytest.mark.parametrize("shared", [True, False], ids=["same object", "same size"])
def test_bipartite_pairs(shared: bool) -> None:
    target = X if shared else torch.randn(N, 16)
    dims = dims_of(gnn.SAGEConv(16, 8), (X, target), EDGES)
    if shared:
        assert dims == {"x_0": ("N", 16), "edge_index": (2, "E")}
    else:
        assert dims == {"x_0": ("N:src", 16), "x_1": ("N:dst", 16), "edge_index": (2, "E")}


def test_two_edge_indices_of_one_size_stay_apart() -> None:
    dims = dims_of(gnn.SignedConv(16, 8, True), X, EDGES, EDGES.clone())
    assert dims["pos_edge_index"] == (2, "E") and dims["neg_edge_index"] == (2, "E:neg_edge_index")


TYPES = {"paper": X, "author": torch.randn(N, 4)}
RELATIONS = {("author", "writes", "paper"): EDGES, ("paper", "cites", "paper"): EDGES.flip(0)}


def test_dictionaries_are_typed_by_their_keys() -> None:
    attributes = {key: torch.rand(E, 2) for key in RELATIONS}
    model = Any_(lambda x_dict, edge_index_dict, edge_attr_dict: None)
    assert dims_of(model, TYPES, RELATIONS, attributes) == {
        "x_dict_paper": ("N:paper", 16),
        "x_dict_author": ("N:author", 4),
        "edge_index_dict_author__writes__paper": (2, "E:author__writes__paper"),
        "edge_index_dict_paper__cites__paper": (2, "E:paper__cites__paper"),
        "edge_attr_dict_author__writes__paper": ("E:author__writes__paper", 2),
        "edge_attr_dict_paper__cites__paper": ("E:paper__cites__paper", 2),
    }


def test_whole_data_objects() -> None:
    data = Data(x=X, edge_index=EDGES, edge_attr=torch.rand(E, 2), name="kept", num_nodes=N)
    signature, tensors = bind(Any_(lambda data: None), (data,), {})
    assert [leaf.dims for leaf in signature.leaves] == [("N", 16), (2, "E"), ("E", 2)]
    (again,), _ = signature.call(tensors)
    assert type(again) is Data and again.name == "kept" and again.num_nodes == N
    assert again.x is X and data.x is X and data.edge_index is EDGES

    hetero = HeteroData()
    hetero["paper"].x = X
    hetero["author"].x = TYPES["author"]
    hetero["author", "writes", "paper"].edge_index = EDGES
    signature, tensors = bind(Any_(lambda data: None), (hetero,), {})
    assert {d for leaf in signature.leaves for d in leaf.dims if isinstance(d, str)} == {
        "N:paper",
        "N:author",
        "E:author__writes__paper",
    }
    (again,), _ = signature.call(tensors)
    assert again.metadata() == hetero.metadata() and again.x_dict.keys() == hetero.x_dict.keys()


def test_batches_of_other_numbers_of_graphs_have_one_signature() -> None:
    one = Data(x=X, edge_index=EDGES)
    model = Any_(lambda data: None)
    signature, tensors = bind(model, (Batch.from_data_list([one, one]),), {})
    (again,), _ = signature.call(tensors)
    assert again.num_graphs == 2
    dims = {leaf.name: leaf.dims for leaf in signature.leaves}
    assert dims["data_batch"] == ("N",) and dims["data_ptr"] == ("G+1",)
    assert bind(model, (Batch.from_data_list([one] * 3),), {})[0].key == signature.key
    assert bind(model, (Batch.from_data_list([one]),), {})[0].key != signature.key  # layers branch on one graph


def test_edge_index_class_is_unwrapped() -> None:
    wrapped = EdgeIndex(EDGES, sparse_size=(N, N))
    plain, _ = bind(gnn.SAGEConv(16, 8), (X, EDGES), {})
    assert bind(gnn.SAGEConv(16, 8), (X, wrapped), {})[0].key == plain.key


def test_sampled_layers_and_sizes() -> None:
    signature, tensors = bind(
        Any_(lambda x, adjs: None),
        (X, [(EDGES, torch.arange(E), (N, N)), (EDGES[:, :4], torch.arange(4), (N, 3))]),
        {},
    )
    assert [leaf.dims for leaf in signature.leaves][1:] == [(2, "E:0"), ("E:0",), (2, "E:1"), ("E:1",)]
    (_, adjs), _ = signature.call([torch.randn(8, 16), *tensors[1:]])
    assert adjs[0][2] == (8, 8) and adjs[1][2] == (8, 3)


def test_sizes_are_not_baked() -> None:
    model = gnn.SAGEConv((16, 16), 8)
    first, tensors = bind(model, ((X, None), EDGES), {"size": (N, 3)})
    second, _ = bind(model, ((torch.randn(7, 16), None), EDGES), {"size": (7, 4)})
    assert first.key == second.key
    args, kwargs = first.call(tensors)
    assert args[0][1] is None and kwargs["size"] == (N, 3)


def test_a_size_that_happens_to_fit_stays_its_own() -> None:
    """`size=(N, M)` with M == N on this graph must not fix M to N."""
    model = gnn.SAGEConv((16, 16), 8)
    first, _ = bind(model, ((X, None), EDGES), {"size": (N, 3)})
    again, tensors = bind(model, ((X, None), EDGES), {"size": (N, N)}, like=first)
    assert again.key == first.key and again.call(tensors)[1]["size"] == (N, N)
    assert bind(model, ((X, None), EDGES), {"size": (N, N)})[0].key != first.key


def test_static_graphs_count_nodes_on_the_second_axis() -> None:
    model = gnn.GCNConv(16, 8)
    edges = torch.tensor([[0, 4], [4, 3]])
    first, _ = bind(model, (torch.randn(3, N, 16), edges), {})
    assert first.leaves[0].dims == (3, "N", 16)
    without = (torch.randn(3, N, 16), edges[:, :0])  # no edge says which axis it is
    assert bind(model, without, {}, like=first)[0].key == first.key
    assert bind(model, without, {})[0].leaves[0].dims == ("N", N, 16)
    histories = (torch.randn(N, 3, 16), edges)
    assert bind(model, histories, {})[0].leaves[0].dims == ("N", 3, 16)


def test_rows_that_no_edge_list_counts_keep_their_space() -> None:
    """A weight per hyperedge: a space of its own, also where its size is that of another, or one."""
    model = gnn.HypergraphConv(16, 8)
    first, _ = bind(model, (X, EDGES, torch.rand(4)), {})
    assert first.leaves[2].dims == ("E:hyperedge_weight",)
    for count in (1, 7, E):
        assert bind(model, (X, EDGES, torch.rand(count)), {}, like=first)[0].key == first.key
    assert bind(model, (X, EDGES, torch.rand(1)), {})[0].leaves[2].dims == (1,)


def test_what_changes_the_key() -> None:
    model = gnn.GCN(16, 8, 2)
    base = bind(model, (X, EDGES), {})[0].key
    assert bind(model, (torch.randn(70, 16), EDGES.repeat(1, 3)), {})[0].key == base
    others = [
        ((torch.randn(N, 15), EDGES), {}),
        ((X.double(), EDGES), {}),
        ((X, EDGES, torch.rand(E)), {}),
        ((X, EDGES), {"num_sampled_nodes_per_hop": None}),
        ((X, EDGES.int()), {}),
    ]
    keys = [bind(model, args, kwargs)[0].key for args, kwargs in others]
    assert base not in keys and len(set(keys)) == len(keys)


def test_constants_of_equal_value_and_other_type_differ() -> None:
    model = Any_(lambda x, flag: None)
    keys = {bind(model, (X, flag), {})[0].key for flag in (1, True, 1.0, "1", None)}
    assert len(keys) == 5


@pytest.mark.parametrize(
    "sparse", [torch.eye(len(X))[:, :4].to_sparse(), torch.eye(len(X)).to_sparse_csr()], ids=["coo", "csr"]
)
def test_sparse_matrices_are_taken_apart(sparse: Tensor) -> None:
    signature, tensors = bind(gnn.SAGEConv(16, 8), (X, sparse), {})
    sizes = signature.sizes(tensors)
    assert sizes["E:edge_index"] == sparse._nnz() and signature.leaves[0].dims[0] in signature.leaves[-2].dims
    (_, again), _ = signature.call(tensors)
    assert again.layout == sparse.layout and torch.equal(again.to_dense(), sparse.to_dense())


@pytest.mark.parametrize("make", [lambda: torch.eye(4).to_sparse_bsr((2, 2)), lambda: torch.eye(4).to_mkldnn()])
def test_other_layouts_are_refused(make: Any) -> None:
    with pytest.raises(CaptureError, match="'edge_index' is a"):
        bind(gnn.SAGEConv(16, 8), (X, make()), {})


def test_wrong_arguments_are_told_apart_from_ours() -> None:
    with pytest.raises(InputError, match=r"SAGEConv\.forward.*edge_idx"):
        bind(gnn.SAGEConv(16, 8), (X,), {"edge_idx": EDGES})


def test_sizes_checks_every_argument() -> None:
    signature, tensors = bind(gnn.GATConv(16, 8, edge_dim=3), (X, EDGES, torch.rand(E, 3)), {})
    assert signature.sizes(tensors) == {"N": N, "E": E}
    with pytest.raises(InputError, match=r"'edge_attr' has size 4 on axis 0, but 9 \(the size of 'edge_index'\)"):
        signature.sizes([tensors[0], tensors[1], torch.rand(4, 3)])


def test_fingerprint_sees_attributes_and_shapes_but_not_values() -> None:
    model = gnn.GAT(16, 8, 2, heads=2).eval()
    before = module_fingerprint(model)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert module_fingerprint(model) == before and hash(before) is not None
    model.convs[0].negative_slope = 0.3
    changed = module_fingerprint(model)
    assert changed != before
    model.train()
    assert module_fingerprint(model) != changed
    model.eval()
    model.convs[1].lin = torch.nn.Linear(3, 4)
    assert module_fingerprint(model) != changed


def test_a_call_like_the_last_has_the_very_same_signature() -> None:
    """And nothing else has: other sizes, types, constants, or one tensor passed twice."""
    model = Call()
    x, y, edge_index = torch.randn(5, 4), torch.randn(5, 4), torch.zeros(2, 7, dtype=torch.long)
    first, _ = bind(model, (x, edge_index), {"k": 2, "z": y})
    again, tensors = bind(model, (x, edge_index), {"k": 2, "z": y}, like=first)
    assert again is first
    assert bind(model, (y, edge_index), {"k": 2, "z": x}, like=first)[0] is first
    assert [tensor is other for tensor, other in zip(tensors, (x, edge_index, y))] == [True] * 3
    others = {
        "type": ((x.double(), edge_index), {"k": 2, "z": y}),
        "constant": ((x, edge_index), {"k": 3, "z": y}),
        "constant of another type": ((x, edge_index), {"k": 2.0, "z": y}),
        "twice": ((x, edge_index), {"k": 2, "z": x}),
        "none": ((x, edge_index), {"k": 2}),
        "columns": ((torch.randn(5, 3), edge_index), {"k": 2, "z": y}),
    }
    for name, (args, kwargs) in others.items():
        expected = bind(model, args, kwargs)[0].key
        found = bind(model, args, kwargs, like=first)[0].key
        assert found == expected != first.key, name
    larger = bind(model, (torch.randn(9, 4), edge_index), {"k": 2, "z": torch.randn(9, 4)}, like=first)[0]
    assert larger.key == first.key
    assert bind(model, (x, edge_index), {"k": 2, "z": y}, like=first)[0].key == first.key


class Call(torch.nn.Module):
    def forward(self, x, edge_index, k=1, z=None):
        return x


def test_a_forward_put_in_place_of_another_is_bound_by_its_own_names() -> None:
    model = Call()
    x, edge_index = torch.randn(5, 4), torch.zeros(2, 7, dtype=torch.long)
    first, _ = bind(model, (x, edge_index), {})
    bind(model, (x, edge_index), {}, like=first)
    model.forward = lambda h, ei: h
    assert [leaf.name for leaf in bind(model, (x, edge_index), {}, like=first)[0].leaves] == ["h", "ei"]
