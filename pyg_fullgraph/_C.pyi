"""The extension's functions: addresses (`data_ptr()`), sizes and strides in; types and shapes are checked by `ops`."""

Place = tuple[int, int]  # address and row stride in elements

def gather_reduce(
    out: int,
    out_stride: int,
    x: int,
    x_stride: int,
    dtype: int,
    src: int,
    index: int,
    rowptr: int,
    rows: int,
    weight: int,
    heads: int,
    channels: int,
    reduce: int,
    threads: int,
    /,
) -> None: ...
def attention(
    out: int,
    out_stride: int,
    value: Place,
    dtype: int,
    src: int,
    index: int,
    rowptr: int,
    rows: int,
    heads: int,
    channels: int,
    score: int,
    key: Place,
    query: Place,
    edge: Place,
    att: int,
    key_channels: int,
    scale: float,
    negative_slope: float,
    threads: int,
    /,
) -> None: ...
def edge_dot(
    out: Place,
    key: Place,
    query: Place,
    dtype: int,
    src: int,
    index: int,
    rowptr: int,
    rows: int,
    heads: int,
    channels: int,
    scale: float,
    threads: int,
    /,
) -> None: ...

class Message:
    """What messages are made of; the arrays are not kept alive."""

    def __init__(
        self,
        x: Place,
        dst: Place,
        edge: Place,
        weight: int,
        dtype: int,
        src: int,
        index: int,
        rowptr: int,
        rows: int,
        width: int,
        activation: int,
        negative_slope: float,
        shift: float,
        /,
    ) -> None: ...

def message(out: Place, message: Message, threads: int, /) -> None: ...
def aggregate(outs: list[Place], message: Message, scale: int, threads: int, /) -> None: ...
def linear_panel(dtype: int, /) -> int: ...
def linear_pack(
    packed: int,
    matrix: int,
    head_stride: int,
    inner_stride: int,
    column_stride: int,
    heads: int,
    inner: int,
    columns: int,
    dtype: int,
    /,
) -> None: ...
def linear(
    out: Place,
    x: Place,
    packed: int,
    panel: int,
    which: int,
    bias: int,
    add: Place,
    rows: int,
    heads: int,
    inner: int,
    columns: int,
    dtype: int,
    activation: int,
    threads: int,
    /,
) -> None: ...
def edge_linear(
    out: Place,
    message: Message,
    packed: int,
    panel: int,
    bias: int,
    columns: int,
    activation: int,
    reduce: int,
    threads: int,
    /,
) -> None: ...
def gather(
    out: int,
    out_stride: int,
    x: int,
    x_stride: int,
    row_bytes: int,
    index: int,
    index_type: int,
    edges: int,
    threads: int,
    /,
) -> None: ...
def repeat(
    out: int, out_stride: int, x: int, x_stride: int, row_bytes: int, rowptr: int, rows: int, threads: int, /
) -> None: ...
def csr(index: int, index_type: int, edges: int, num_rows: int, rowptr: int, perm: int, threads: int, /) -> bool: ...
def count_rows(index: int, index_type: int, edges: int, rows: int, counts: int, threads: int, /) -> bool: ...
def place_rows(
    index: int, index_type: int, edges: int, rows: int, next: int, position: int, threads: int, /
) -> bool: ...
def count_edges(rowptr: int, rows: int, /) -> int: ...
def isa() -> str: ...
def isas() -> list[str]: ...
def set_isa(name: str, /) -> None: ...
def thread_pool() -> str: ...
def set_own_workers(on: bool, /) -> None: ...
def compiler() -> str: ...
def probe_triad(bytes: int, threads: int, /) -> float: ...
def probe_rows(row_bytes: int, bytes: int, reads: int, threads: int, /) -> float: ...
