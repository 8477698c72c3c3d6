"""Reads the graph that a user names on the command line: a file, a PyG data set, or the built-in fall-back.

| given | read as |
| --- | --- |
| ``graph.npz`` | NumPy arrays, see :func:`read_npz` |
| ``graph.pt`` | a saved ``Data`` or ``HeteroData`` |
| ``Planetoid/PubMed`` | a data set of ``torch_geometric.datasets``, downloaded where absent |
| ``karate`` | the largest real graph inside the PyG package: Zachary's karate club, 34 nodes |
| ``community`` or ``community:20000`` | a generated community graph with that many nodes |
"""

from __future__ import annotations

import inspect
import pickle
import re
from http.client import HTTPException
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch_geometric.datasets
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage
from torch_geometric.datasets import KarateClub

from pyg_fullgraph.errors import InputError
from pyg_fullgraph.graph.generate import community
from pyg_fullgraph.graph.validate import check_edge_index, check_shape, in_range

COMMUNITY_NODES = 20_000

#: The parts of a saved `Data` or `HeteroData` that PyG itself does not register as safe; they hold data only.
_DATA_CLASSES = [DataEdgeAttr, DataTensorAttr, BaseStorage, GlobalStorage, NodeStorage, EdgeStorage]

_MASKS = ("train_mask", "val_mask", "test_mask")
_CSR_PARTS = ("indptr", "indices", "data", "shape")


def read_graph(
    source: str | Path, *, root: str | Path = "data", sparse_x: bool = False, split: int = 0
) -> Data | HeteroData:
    """Reads the graph that ``source`` names.

    Args:
        source: a path that ends in ``.npz`` or ``.pt``, a data set such as ``Planetoid/PubMed``, ``karate``,
            ``community`` or ``community:NODES``.
        root: the folder into which data sets are downloaded.
        sparse_x: for ``.npz``, keep sparse features as a ``torch.sparse`` CSR tensor.
        split: which of several published splits of the masks to take.

    Raises:
        InputError: if there is no such file or data set, it cannot be read, or it cannot be downloaded.
    """
    text = str(source)
    if text.endswith(".npz"):
        return read_npz(source, sparse_x=sparse_x, split=split)
    if text.endswith((".pt", ".pth")):
        return read_pt(source)
    if text.lower() == "karate":
        return karate()
    generated = re.fullmatch(r"community(?::([0-9_]+))?", text)
    if generated:
        count = int(generated[1] or COMMUNITY_NODES)
        if count < 1:
            raise InputError(f"'{text}': a community graph needs at least 1 node, such as community:20000.")
        return community_data(count)
    if re.fullmatch(r"[A-Za-z]\w*(/[\w.\-]+)*", text) and hasattr(torch_geometric.datasets, text.split("/")[0]):
        return read_dataset(text, root=root, split=split)
    raise InputError(
        f"'{text}' is neither a file this program reads (.npz, .pt) nor a data set of "
        "torch_geometric.datasets. Examples: graph.npz, graph.pt, Planetoid/PubMed, karate, community:20000."
    )


def read_npz(path: str | Path, *, sparse_x: bool = False, split: int = 0) -> Data | HeteroData:
    """Reads a graph from a file of NumPy arrays; nothing in it is unpickled.

    Homogeneous: ``edge_index`` ``[2, E]``, row 0 = source; features ``x`` ``[N, F]``, or as CSR parts
        ``x_indptr``, ``x_indices``, ``x_data``, ``x_shape``; ``y``; masks ``[N]`` or one row per split;
        ``graph_ptr`` ``[G + 1]`` where the file holds many graphs (becomes ``ptr`` and ``batch``). Any other
        array is taken over as it is.
    Heterogeneous: the same names followed by ``__type``, and ``edge_index__source__relation__destination``.

    Args:
        path: the file.
        sparse_x: keep sparse features as a ``torch.sparse`` CSR tensor; else they become dense float32.
        split: which row of two-dimensional masks to take.

    Raises:
        InputError: if the file is absent or not of this form.
        GraphError: if an edge is out of range; it is named.
    """
    path = _existing(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: _tensor(file[name], name, path) for name in file.files}
    except InputError:
        raise
    except Exception as error:  # NumPy raises anything for a file of another kind
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty.") from error
        raise InputError(
            f"{path} is not an .npz file of plain arrays ({error}). Write it with "
            "numpy.savez_compressed(path, "
            f"edge_index=..., x=..., y=...), without object arrays."
        ) from error
    if any(name.startswith("edge_index__") for name in arrays):
        return _hetero(arrays, path, sparse_x, split)
    if "edge_index" not in arrays:
        raise InputError(
            f"{path} holds no 'edge_index' [2, E] (found: {', '.join(sorted(arrays)) or 'nothing'}). "
            f"Heterogeneous files name their edges 'edge_index__source__relation__destination'."
        )
    return _homogeneous(arrays, path, sparse_x, split)


def read_pt(path: str | Path) -> Data | HeteroData:
    """Reads a ``Data`` or ``HeteroData`` saved with ``torch.save``, without running code from the file.

    Args:
        path: the file. It may hold the object itself or a tuple or list that begins with it.

    Raises:
        InputError: if the file is absent, holds other classes than PyG's data classes, or no graph.
    """
    path = _existing(path)
    try:
        with torch.serialization.safe_globals(_DATA_CLASSES):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"objects of the class {refused[1]}" if refused else "objects that are not plain data"
        raise InputError(
            f"{path} was not loaded: it holds {what}, and unpickling anything but tensors and PyG data "
            "classes can run any code. If you trust the file, load it yourself with weights_only=False and "
            "save the graph alone: torch.save(Data(x=..., edge_index=...), path)."
        ) from error
    except Exception as error:  # text and other files make the reader raise anything
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty.") from error
        raise InputError(f"{path} is not a file written by torch.save ({_first_line(error)}).") from error
    if isinstance(loaded, (tuple, list)) and loaded:
        loaded = loaded[0]
    if not isinstance(loaded, (Data, HeteroData)):
        raise InputError(
            f"{path} holds a {type(loaded).__name__}, not a graph. Save a torch_geometric.data.Data: "
            f"torch.save(data, path)."
        )
    return loaded


def read_dataset(name: str, *, root: str | Path = "data", split: int = 0) -> Data | HeteroData:
    """Reads the first graph of a PyG data set, for example ``Planetoid/PubMed`` or ``Flickr``.

    Args:
        name: the class in ``torch_geometric.datasets``, then the ``name=`` of its constructor if it takes
            one.
        root: the folder for downloads; every class and name has its own folder in it.
        split: which row of two-dimensional masks to take.

    Raises:
        InputError: if there is no such data set, it cannot be constructed by name alone, or not downloaded.
    """
    kind, _, member = name.partition("/")
    constructor = getattr(torch_geometric.datasets, kind, None)
    if not inspect.isclass(constructor):
        raise InputError(f"torch_geometric.datasets has no data set '{kind}'. Example: Planetoid/PubMed.")
    parameters = inspect.signature(constructor).parameters
    arguments: dict[str, Any] = {}
    if "root" in parameters:
        arguments["root"] = str(Path(root) / kind)
    if member:
        arguments["name"] = member
    problem = _wrong_arguments(parameters, arguments, kind)
    if problem:
        raise InputError(problem)
    try:
        dataset: Any = constructor(**arguments)
    except (OSError, HTTPException) as error:  # what urllib, aiohttp and fsspec raise
        raise InputError(
            f"'{name}' could not be downloaded ({_first_line(error)}). Check the name; without a network, "
            "put the data set's files under "
            f"{arguments.get('root', root)} yourself, or give an .npz or .pt file, 'karate' or 'community'."
        ) from error
    except (ValueError, AssertionError, KeyError) as error:
        raise InputError(f"torch_geometric.datasets.{kind} refused '{member}': {_first_line(error)}") from error
    data = dataset[0]
    if isinstance(data, Data):
        _take_split(data, split, Path(name))
    return cast("Data | HeteroData", data)


def karate() -> Data:
    """Returns the largest real graph whose edges ship inside the PyG package: the karate club (34 nodes, 156
    edges).

    Zachary, "An Information Flow Model for Conflict and Fission in Small Groups", 1977. Its features are
    one-hot ids; every node that is not a training node is a test node.
    """
    data = cast(Data, KarateClub()[0])
    data.test_mask = ~data.train_mask
    data.name = "karate"
    return data


def community_data(num_nodes: int = COMMUNITY_NODES, *, seed: int = 0) -> Data:
    """Returns a generated community graph as ``Data``: 60 % training, 20 % validation and 20 % test nodes.

    Args:
        num_nodes: the number of nodes.
        seed: of the random numbers.
    """
    graph = community(num_nodes, seed=seed)
    data = Data(x=graph.x, edge_index=graph.edge_index, y=graph.y, num_nodes=num_nodes)
    random_split(data, seed=seed)
    data.name = f"community:{num_nodes}"
    return data


def random_split(data: Data, *, train: float = 0.6, val: float = 0.2, seed: int = 0) -> None:
    """Sets ``train_mask``, ``val_mask`` and ``test_mask`` at random over the labelled nodes (``y >= 0``).

    Args:
        data: with ``y`` ``[N]``; the masks are set on it.
        train: the share of training nodes.
        val: the share of validation nodes; the rest are test nodes.
        seed: of the random numbers.
    """
    labels = cast(Tensor, data.y)
    draw = torch.rand(labels.size(0), generator=torch.Generator().manual_seed(seed))
    labelled = labels.view(labels.size(0), -1)[:, 0] >= 0
    data.train_mask = labelled & (draw < train)
    data.val_mask = labelled & (draw >= train) & (draw < train + val)
    data.test_mask = labelled & (draw >= train + val)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path} (looked in {Path.cwd()}). Check the path.")
    return path


def _readable(array: np.ndarray) -> np.ndarray:
    """Types that torch lacks or that cannot index become the next wider ones that hold every value."""
    wider = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64, np.dtype(np.uint64): np.int64}
    array = array.astype(wider.get(array.dtype, array.dtype), copy=False)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _tensor(array: Any, name: str, path: Path) -> Tensor:
    """An array of a file as a tensor."""
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: '{name}' is no NumPy array; the file was not written by numpy.savez.")
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise InputError(f"{path}: {name} holds {int(array.max())}, more than an int64 can.")
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 16 or array.dtype in (np.longdouble, np.clongdouble):
        what = "text" if array.dtype.kind in "US" else "another kind of values"
        raise InputError(f"{path}: {name} is {array.dtype} {list(array.shape)}, {what}; it must be numbers.")
    return torch.from_numpy(_readable(array))


def _numbers(value: Tensor, name: str, path: Path) -> Tensor:
    """An array of node or edge numbers as int64: nothing is rounded on the way."""
    if value.dtype == torch.bool or value.is_floating_point() or value.is_complex():
        kind = str(value.dtype).removeprefix("torch.")
        raise InputError(
            f"{name} in {path} is {kind} {list(value.shape)}; it must be int64. Write it with {name}.astype('int64') "
            "after a look at what its values mean."
        )
    return value.long()


def _homogeneous(arrays: dict[str, Tensor], path: Path, sparse_x: bool, split: int) -> Data:
    """A `Data` from the arrays of one node type."""
    edge_index = _numbers(arrays.pop("edge_index"), "edge_index", path)
    check_shape(edge_index, f"edge_index of {path.name}")
    x = _features(arrays, "x", sparse_x, path)
    graph_ptr = arrays.pop("graph_ptr", None)
    named = {name: _index_like(name, value, path) for name, value in arrays.items()}
    data = Data(x=x, edge_index=edge_index, **named)
    per_node = [t.size(0) for t in (x, *(arrays.get(k) for k in ("y", "node_label"))) if t is not None]
    if graph_ptr is not None:
        graph_ptr = _numbers(graph_ptr, "graph_ptr", path)
        if graph_ptr.dim() != 1 or graph_ptr.numel() == 0 or not bool((graph_ptr.diff() >= 0).all()):
            raise InputError(f"{path}: graph_ptr {list(graph_ptr.shape)} must be [G + 1], never decreasing.")
        data.ptr = graph_ptr
        data.batch = torch.arange(graph_ptr.numel() - 1).repeat_interleave(graph_ptr.diff())
        data.num_nodes = int(graph_ptr[-1])
    elif per_node:
        data.num_nodes = per_node[0]
    else:
        data.num_nodes = int(edge_index.max()) + 1 if edge_index.numel() > 0 else 0
    check_edge_index(edge_index, data.num_nodes, name=f"edge_index of {path.name}")
    _take_split(data, split, path)
    data.name = path.stem
    return data


def _hetero(arrays: dict[str, Tensor], path: Path, sparse_x: bool, split: int) -> HeteroData:
    """A `HeteroData` from arrays named ``kind__type``."""
    data = HeteroData()
    _node_stores(data, arrays, sparse_x, path)
    relations = [name for name in arrays if name.startswith("edge_index__")]
    for name in relations:
        parts = name.removeprefix("edge_index__").split("__")
        if len(parts) != 3:
            raise InputError(f"{path}: '{name}' must be named 'edge_index__source__relation__destination'.")
        source, relation, destination = parts
        edge_index = _numbers(arrays[name], name, path)
        check_shape(edge_index, f"{name} of {path.name}")
        num_src, num_dst = _stated_size(data, source), _stated_size(data, destination)
        if num_src is None or num_dst is None:
            raise InputError(f"{path}: '{name}' needs 'num_nodes__{source}' and 'num_nodes__{destination}'.")
        check_edge_index(edge_index, num_src, num_dst, name=f"{name} of {path.name}")
        data[source, relation, destination].edge_index = edge_index
        for other, value in arrays.items():
            if other.startswith("edge_") and not other.startswith("edge_index") and other.endswith(f"__{relation}"):
                kind = other.removesuffix(f"__{relation}")
                data[source, relation, destination][kind] = _index_like(kind, value, path)
    for store in data.node_stores:
        _take_split(store, split, path)
    return data


def _stated_size(data: HeteroData, node_type: str) -> int | None:
    """The number of nodes of a type where the file says it, by itself or by the rows of some array."""
    return data[node_type].num_nodes if node_type in data.node_types and len(data[node_type]) > 0 else None


def _node_stores(data: HeteroData, arrays: dict[str, Tensor], sparse_x: bool, path: Path) -> None:
    """Fills the node types with features, labels, masks and sizes; takes what it uses out of ``arrays``."""
    for name in [name for name in arrays if name.startswith("num_nodes__")]:
        count = _numbers(arrays.pop(name), name, path)
        if count.numel() != 1 or int(count) < 0:
            raise InputError(f"{path}: {name} must be one number of nodes, at least 0 (got {count.tolist()}).")
        data[name.removeprefix("num_nodes__")].num_nodes = int(count)
    types = {name.removeprefix("x__").removesuffix("_indptr") for name in arrays if re.match(r"x__.*_indptr$", name)}
    types |= {name.removeprefix("x__") for name in arrays if re.match(r"x__(?!.*_(indptr|indices|data|shape)$)", name)}
    for node_type in sorted(types):
        data[node_type].x = _features(arrays, f"x__{node_type}", sparse_x, path)
    for name in [name for name in arrays if not name.startswith("edge_")]:
        kind, _, node_type = name.partition("__")
        if node_type:
            data[node_type][kind] = _index_like(kind, arrays.pop(name), path)


def _features(arrays: dict[str, Tensor], name: str, sparse: bool, path: Path) -> Tensor | None:
    """Dense features, or CSR parts put together; float32 where that holds every value."""
    if name in arrays:
        x = arrays.pop(name)
        if x.dim() == 0:
            raise InputError(f"{path}: {name} is one number; it must have one row per node, [N, F].")
        return x
    parts = [arrays.pop(f"{name}_{part}", None) for part in _CSR_PARTS]
    if any(part is None for part in parts):
        return None
    pointer, column, value, shape = cast("list[Tensor]", parts)
    pointer, column = _numbers(pointer, f"{name}_indptr", path), _numbers(column, f"{name}_indices", path)
    value, shape = _as_float(value), _numbers(shape, f"{name}_shape", path)
    if shape.numel() != 2:
        raise InputError(f"{path}: {name}_shape must be two numbers, rows and columns (got {shape.tolist()}).")
    rows, columns = (int(n) for n in shape.view(-1))
    degree = pointer.diff()
    if pointer.numel() != rows + 1 or not in_range(degree, value.numel() + 1) or not in_range(column, columns):
        raise InputError(
            f"The sparse features '{name}' are not a valid CSR matrix of {rows:,} x {columns:,}: "
            f"'{name}_indptr' must "
            f"hold {rows + 1:,} ascending numbers and '{name}_indices' columns below {columns:,}."
        )
    row = torch.arange(rows).repeat_interleave(degree, output_size=column.numel())
    # Duplicate entries of a sparse matrix add up.
    if sparse:
        entries = torch.stack([row, column])
        return (
            torch.sparse_coo_tensor(entries, value, (rows, columns), check_invariants=True).coalesce().to_sparse_csr()
        )
    return torch.zeros(rows, columns, dtype=value.dtype).index_put_((row, column), value, accumulate=True)


def _as_float(value: Tensor) -> Tensor:
    """float32 where it holds every value, else the type that the file has."""
    if value.is_complex():
        return value
    single = value.float()
    same = single.to(value.dtype) == value
    return single if bool((same | value.isnan()).all()) else (value if value.is_floating_point() else value.double())


def _index_like(name: str, value: Tensor, path: Path) -> Tensor:
    """Types are used as indices, so they become int64; so do labels that are whole numbers (others are targets)."""
    if name in ("edge_type", "node_type"):
        return _numbers(value, name, path)
    labels = name in ("y", "node_label", "edge_label") and not (value.is_floating_point() or value.is_complex())
    return value.long() if labels else value


def _take_split(store: Any, split: int, path: Path) -> None:
    """Replaces masks that hold several splits by one of them."""
    for name in _MASKS:
        mask = getattr(store, name, None)
        if mask is None or mask.dim() < 2:
            continue
        # PyG stores [N, splits], the .npz files [splits, N]: the node axis is the one as long as the graph.
        mask = mask if mask.size(1) == store.num_nodes else mask.t()
        if not 0 <= split < mask.size(0):
            raise InputError(f"{path} has {mask.size(0)} splits, numbered from 0; there is no split {split}.")
        store[name] = mask[split].contiguous()


def _wrong_arguments(parameters: Any, arguments: dict[str, Any], kind: str) -> str | None:
    """What is wrong with constructing a data set from a root and a name, or ``None``."""
    takes_name = "name" in parameters
    if "name" in arguments and not takes_name:
        return f"torch_geometric.datasets.{kind} takes no name: write just '{kind}'."
    required = [
        key
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        and key not in arguments
    ]
    if required == ["name"]:
        return f"torch_geometric.datasets.{kind} needs a name: '{kind}/NAME', as in its documentation."
    if required:
        return (
            f"torch_geometric.datasets.{kind} needs {', '.join(required)}, which cannot be given here. "
            f"Construct it in Python, then torch.save(dataset[0], 'graph.pt')."
        )
    return None


def _first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class where there is none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
