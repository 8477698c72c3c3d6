// The table of one instruction set's kernels.
#include "cpu/kernels.h"

#define FG_QUOTE_(x) #x
#define FG_QUOTE(x) FG_QUOTE_(x)
#define FG_JOIN_(a, b) a##b
#define FG_JOIN(a, b) FG_JOIN_(a, b)

namespace fg {
namespace FG_ISA {

int64_t reduce_scratch(const ReduceArgs&, int64_t);
void reduce_rows(const ReduceArgs&, int64_t, int64_t, void*);
void reduce_part(const ReduceArgs&, int64_t, int64_t, void*, void*);
void reduce_merge(const ReduceArgs&, int64_t, const void*, int64_t);
int64_t attend_scratch(const AttendArgs&, int64_t);
int64_t attend_stats_bytes(const AttendArgs&);
void attend_rows(const AttendArgs&, int64_t, int64_t, void*);
void attend_part(const AttendArgs&, int64_t, int64_t, int64_t, void*, void*, void*);
void attend_merge(const AttendArgs&, int64_t, void*, const void*, int64_t, void*);
void attend_weights(const AttendArgs&, int64_t, int64_t, int64_t, const void*, void*);
void attend_scores(const AttendArgs&, int64_t, int64_t, int64_t, void*);
int64_t message_scratch(const MessageArgs&);
void message_rows(const MessageArgs&, int64_t, int64_t, void*);
void message_part(const MessageArgs&, int64_t, int64_t, int64_t, void*);
int64_t aggregate_scratch(const AggregateArgs&);
int64_t aggregate_state_bytes(const AggregateArgs&);
void aggregate_rows(const AggregateArgs&, int64_t, int64_t, void*);
void aggregate_part(const AggregateArgs&, int64_t, int64_t, int64_t, void*, void*);
void aggregate_merge(const AggregateArgs&, int64_t, void*, int64_t, void*);
void copy_rows(char*, int64_t, const char*, int64_t, int64_t, const void*, int, int64_t, int64_t, int64_t);
void repeat_rows(char*, int64_t, const char*, int64_t, int64_t, const int64_t*, int64_t, int64_t);
float sum_lines(const char*, int64_t, const int32_t*, int64_t, int64_t, int64_t);
int64_t linear_panel(int);
void linear_pack(const LinearArgs&, const void*, int64_t, int64_t, int64_t, void*);
void linear_rows(const LinearArgs&, int64_t, int64_t);
int64_t edge_linear_scratch(const EdgeLinearArgs&);
void edge_linear_rows(const EdgeLinearArgs&, int64_t, int64_t, void*);

}  // namespace FG_ISA

const Kernels* FG_JOIN(kernels_, FG_ISA)() {
  namespace isa = FG_ISA;
  static constexpr Kernels kernels = {
      FG_QUOTE(FG_ISA),
      isa::reduce_scratch,
      isa::reduce_rows,
      isa::reduce_part,
      isa::reduce_merge,
      isa::attend_scratch,
      isa::attend_stats_bytes,
      isa::attend_rows,
      isa::attend_part,
      isa::attend_merge,
      isa::attend_weights,
      isa::attend_scores,
      isa::message_scratch,
      isa::message_rows,
      isa::message_part,
      isa::aggregate_scratch,
      isa::aggregate_state_bytes,
      isa::aggregate_rows,
      isa::aggregate_part,
      isa::aggregate_merge,
      isa::copy_rows,
      isa::repeat_rows,
      isa::sum_lines,
      isa::linear_panel,
      isa::linear_pack,
      isa::linear_rows,
      isa::edge_linear_scratch,
      isa::edge_linear_rows,
  };
  return &kernels;
}

}  // namespace fg
