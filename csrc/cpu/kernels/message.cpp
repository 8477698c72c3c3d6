// Messages written out: the operator `message`, and tiles of accumulators for reductions that need them
// twice.
#include "cpu/kernels/message.h"

namespace fg {
namespace FG_ISA {
namespace {

template <class T, class OUT, bool EDGE, bool PLAIN, int L>
FG_NOINLINE void write_tile(const MessageArgs& args, const Tile& tile) {
  const accum<T>* dst = static_cast<const accum<T>*>(tile.dst);
  const auto write = [&](const auto& group, int64_t e) FG_LAMBDA {
    OUT* out = static_cast<OUT*>(tile.out) + (e - tile.e0) * tile.stride - tile.column;
    for_slots<L>(tile.column, tile.end, [&](int64_t c, int64_t place) FG_LAMBDA {
      group.fetch(c);
      const auto mine = load<L>(dst + c);
      OUT* to = out + (tile.slots ? place : c);
#pragma GCC unroll 4
      for (int g = 0; g < group.kEdges; ++g) store<L>(to + g * tile.stride, group.message(g, c, mine));
    });
  };
  for_groups<T, EDGE, PLAIN, L>(args, tile.e0, tile.e1, tile.end - tile.column, write);
}

template <class OUT>
struct PickWrite {
  template <class T, bool EDGE, bool PLAIN, int L>
  TileFn at() const {
    return write_tile<T, OUT, EDGE, PLAIN, L>;
  }
};

void write_edges(const MessageArgs& args, TileFn write, int64_t row, int64_t e0, int64_t e1, void* scratch) {
  char* out = static_cast<char*>(args.out) + e0 * args.out_stride * element_bytes(args.dtype);
  write(args, {row_dst(args, row, scratch), e0, e1, 0, args.width, out, args.out_stride, false});
}

}  // namespace

TileFn accumulator_tile(const MessageArgs& args) {
  TileFn found = nullptr;
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    found = pick_loop<T>(args, PickWrite<accum<T>>());
  });
  return found;
}

TileFn element_tile(const MessageArgs& args) {
  TileFn found = nullptr;
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    found = pick_loop<T>(args, PickWrite<T>());
  });
  return found;
}

void prepare_dst(const MessageArgs& args, void* scratch) {
  if (args.dst.data != nullptr) return;
  with_type(args.dtype, [&](auto type) {
    using A = accum<decltype(type)>;
    for (int64_t c = 0; c < args.width; ++c) static_cast<A*>(scratch)[c] = static_cast<A>(-0.0);
  });
}

const void* row_dst(const MessageArgs& args, int64_t row, void* scratch) {
  const void* found = scratch;
  if (args.dst.data == nullptr) return found;
  with_type(args.dtype, [&](auto type) {
    using T = decltype(type);
    const T* given = static_cast<const T*>(args.dst.data) + row * args.dst.stride;
    if constexpr (__is_same(T, accum<T>)) {
      found = given;
    } else {
      for (int64_t c = 0; c < args.width; ++c)
        store<1>(static_cast<accum<T>*>(scratch) + c, load<1>(given + c));
    }
  });
  return found;
}

int64_t message_scratch(const MessageArgs& args) {
  return args.width * accumulator_bytes(args.dtype);
}

void message_rows(const MessageArgs& args, int64_t r0, int64_t r1, void* scratch) {
  const int64_t* rowptr = args.edges.rowptr;
  const TileFn write = element_tile(args);
  prepare_dst(args, scratch);
  if (args.dst.data == nullptr)  // then rows do not differ
    return write_edges(args, write, r0, rowptr[r0] - rowptr[0], rowptr[r1] - rowptr[0], scratch);
  for (int64_t r = r0; r < r1; ++r)
    write_edges(args, write, r, rowptr[r] - rowptr[0], rowptr[r + 1] - rowptr[0], scratch);
}

void message_part(const MessageArgs& args, int64_t row, int64_t e0, int64_t e1, void* scratch) {
  prepare_dst(args, scratch);
  write_edges(args, element_tile(args), row, e0, e1, scratch);
}

}  // namespace FG_ISA
}  // namespace fg
