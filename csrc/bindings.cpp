// The border to Python: addresses and sizes in, no torch header. The Python side checks types and shapes.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "cpu/isa.h"
#include "cpu/operators.h"
#include "cpu/parallel.h"

namespace py = pybind11;

namespace {

using Address = uintptr_t;
using Place = std::pair<Address, int64_t>;  // address and row stride in elements

template <class T = const void>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

fg::Rows rows_at(Place place) {
  return {pointer(place.first), place.second};
}

fg::Edges edges_at(Address src, int index, Address rowptr, int64_t rows) {
  fg::Edges edges;
  edges.src = pointer(src);
  edges.rowptr = pointer<const int64_t>(rowptr);
  edges.rows = rows;
  edges.index = index;
  return edges;
}

void gather_reduce(Address out, int64_t out_stride, Address x, int64_t x_stride, int dtype, Address src,
                   int index, Address rowptr, int64_t rows, Address weight, int64_t heads, int64_t channels,
                   int reduce, int threads) {
  py::gil_scoped_release release;
  fg::ReduceArgs args;
  args.edges = edges_at(src, index, rowptr, rows);
  args.x = {pointer(x), x_stride};
  args.weight = pointer(weight);
  args.heads = heads;
  args.channels = channels;
  args.out = pointer<void>(out);
  args.out_stride = out_stride;
  args.dtype = dtype;
  args.reduce = reduce;
  fg::gather_reduce(args, threads);
}

void attention(Address out, int64_t out_stride, Place value, bool shared, int dtype, Address src, int index,
               Address rowptr, int64_t rows, int64_t heads, int64_t channels, int score, Place key,
               Place query, Place edge, Address att, int64_t key_channels, double scale,
               double negative_slope, int threads) {
  py::gil_scoped_release release;
  fg::AttendArgs args;
  args.edges = edges_at(src, index, rowptr, rows);
  args.value = rows_at(value);
  args.shared = shared;
  args.heads = heads;
  args.channels = channels;
  args.out = pointer<void>(out);
  args.out_stride = out_stride;
  args.dtype = dtype;
  args.score = score;
  args.key = rows_at(key);
  args.query = rows_at(query);
  args.edge = rows_at(edge);
  args.att = pointer(att);
  args.key_channels = key_channels;
  args.scale = scale;
  args.negative_slope = negative_slope;
  fg::attention(args, threads);
}

void edge_dot(Place out, Place key, Place query, int dtype, Address src, int index, Address rowptr,
              int64_t rows, int64_t heads, int64_t channels, double scale, int threads) {
  py::gil_scoped_release release;
  fg::AttendArgs args;
  args.edges = edges_at(src, index, rowptr, rows);
  args.heads = heads;
  args.out = pointer<void>(out.first);
  args.out_stride = out.second;
  args.dtype = dtype;
  args.score = fg::kDot;
  args.key = rows_at(key);
  args.query = rows_at(query);
  args.key_channels = channels;
  args.scale = scale;
  fg::edge_scores(args, threads);
}

// What a message is, for the operators that follow.
fg::MessageArgs message_of(Place x, Place dst, Place edge, Address weight, int dtype, Address src, int index,
                           Address rowptr, int64_t rows, int64_t width, int activation, double negative_slope,
                           double shift) {
  fg::MessageArgs args;
  args.edges = edges_at(src, index, rowptr, rows);
  args.x = rows_at(x);
  args.dst = rows_at(dst);
  args.edge = rows_at(edge);
  args.weight = pointer(weight);
  args.width = width;
  args.dtype = dtype;
  args.activation = activation;
  args.negative_slope = negative_slope;
  args.shift = shift;
  return args;
}

void message(Place out, const fg::MessageArgs& given, int threads) {
  py::gil_scoped_release release;
  fg::MessageArgs args = given;
  args.out = pointer<void>(out.first);
  args.out_stride = out.second;
  fg::message(args, threads);
}

void aggregate(const std::vector<Place>& outs, const fg::MessageArgs& given, Address scale, int threads) {
  py::gil_scoped_release release;
  fg::AggregateArgs args;
  args.message = given;
  for (size_t i = 0; i < outs.size() && i < fg::kOutputs; ++i)
    args.outs[i] = {pointer<void>(outs[i].first), outs[i].second};
  args.scale = pointer(scale);
  fg::aggregate(args, threads);
}

// A matrix packed for another instruction set would be read wrongly.
void check_panel(int64_t panel, int dtype) {
  if (panel != fg::kernels().linear_panel(dtype))
    throw std::invalid_argument("the matrix was packed for another instruction set");
}

void linear_pack(Address packed, Address matrix, int64_t head_stride, int64_t inner_stride,
                 int64_t column_stride, int64_t heads, int64_t inner, int64_t columns, int dtype) {
  py::gil_scoped_release release;
  fg::LinearArgs args;
  args.heads = heads;
  args.inner = inner;
  args.columns = columns;
  args.dtype = dtype;
  fg::kernels().linear_pack(args, pointer(matrix), head_stride, inner_stride, column_stride,
                            pointer<void>(packed));
}

void linear(Place out, Place x, Address packed, int64_t panel, Address which, Address bias, Place add,
            int64_t rows, int64_t heads, int64_t inner, int64_t columns, int dtype, int activation,
            int threads) {
  check_panel(panel, dtype);
  py::gil_scoped_release release;
  fg::LinearArgs args;
  args.x = rows_at(x);
  args.packed = pointer(packed);
  args.which = pointer<const int64_t>(which);
  args.bias = pointer(bias);
  args.add = rows_at(add);
  args.rows = rows;
  args.heads = heads;
  args.inner = inner;
  args.columns = columns;
  args.out = pointer<void>(out.first);
  args.out_stride = out.second;
  args.dtype = dtype;
  args.activation = activation;
  fg::linear(args, threads);
}

void edge_linear(Place out, const fg::MessageArgs& given, Address packed, int64_t panel, Address bias,
                 int64_t columns, int activation, int reduce, int threads) {
  check_panel(panel, given.dtype);
  py::gil_scoped_release release;
  fg::EdgeLinearArgs args;
  args.message = given;
  args.packed = pointer(packed);
  args.bias = pointer(bias);
  args.columns = columns;
  args.out = pointer<void>(out.first);
  args.out_stride = out.second;
  args.activation = activation;
  args.reduce = reduce;
  fg::edge_linear(args, threads);
}

void gather(Address out, int64_t out_stride, Address x, int64_t x_stride, int64_t row_bytes, Address index,
            int index_type, int64_t edges, int threads) {
  py::gil_scoped_release release;
  fg::gather(pointer<char>(out), out_stride, pointer<const char>(x), x_stride, row_bytes, pointer(index),
             index_type, edges, threads);
}

void repeat(Address out, int64_t out_stride, Address x, int64_t x_stride, int64_t row_bytes, Address rowptr,
            int64_t rows, int threads) {
  py::gil_scoped_release release;
  fg::repeat(pointer<char>(out), out_stride, pointer<const char>(x), x_stride, row_bytes,
             pointer<const int64_t>(rowptr), rows, threads);
}

bool csr(Address index, int index_type, int64_t edges, int64_t num_rows, Address rowptr, Address perm,
         int threads) {
  py::gil_scoped_release release;
  return fg::csr(pointer(index), index_type, edges, num_rows, pointer<int64_t>(rowptr), pointer<void>(perm),
                 threads);
}

bool count_rows(Address index, int index_type, int64_t edges, int64_t rows, Address counts, int threads) {
  py::gil_scoped_release release;
  return fg::count_rows(pointer(index), index_type, edges, rows, pointer<int64_t>(counts), threads);
}

bool place_rows(Address index, int index_type, int64_t edges, int64_t rows, Address next, Address position,
                int threads) {
  py::gil_scoped_release release;
  return fg::place_rows(pointer(index), index_type, edges, rows, pointer<int64_t>(next),
                        pointer<int64_t>(position), threads);
}

// The edges of these rows; -1 where a row would end before it starts. The kernels believe rowptr, so it is
// read whole: no more than they read themselves.
int64_t count_edges(Address rowptr, int64_t rows) {
  const int64_t* p = pointer<const int64_t>(rowptr);
  bool falls = false;
  for (int64_t row = 0; row < rows; ++row) falls |= p[row] > p[row + 1];
  if (falls) return -1;
  const uint64_t edges = static_cast<uint64_t>(p[rows]) - static_cast<uint64_t>(p[0]);
  return edges > static_cast<uint64_t>(INT64_MAX) ? -1 : static_cast<int64_t>(edges);
}

const char* compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "g++ " __VERSION__;
#endif
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "The CPU kernels of pyg_fullgraph over addresses and sizes; use pyg_fullgraph.ops.";
  m.def("gather_reduce", &gather_reduce);
  m.def("attention", &attention);
  m.def("edge_dot", &edge_dot);
  py::class_<fg::MessageArgs>(m, "Message", py::module_local()).def(py::init(&message_of));
  m.def("message", &message);
  m.def("aggregate", &aggregate);
  m.def("linear_panel", [](int dtype) { return fg::kernels().linear_panel(dtype); });
  m.def("linear_pack", &linear_pack);
  m.def("linear", &linear);
  m.def("edge_linear", &edge_linear);
  m.def("gather", &gather);
  m.def("repeat", &repeat);
  m.def("csr", &csr);
  m.def("count_rows", &count_rows);
  m.def("place_rows", &place_rows);
  m.def("count_edges", &count_edges);
  m.def("isa", [] { return fg::kernels().name; });
  m.def("isas", &fg::isas);
  m.def("set_isa", &fg::set_isa);
  m.def("thread_pool", &fg::thread_pool);
  m.def("set_own_workers", &fg::set_own_workers);
  m.def("compiler", &compiler);
  m.def("probe_triad", &fg::probe_triad, py::call_guard<py::gil_scoped_release>());
  m.def("probe_rows", &fg::probe_rows, py::call_guard<py::gil_scoped_release>());
}
