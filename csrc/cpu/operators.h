// The operators: kernels over all rows, split over threads.
#pragma once

#include "cpu/kernels.h"

namespace fg {

void gather_reduce(const ReduceArgs& args, int threads);
void attention(const AttendArgs& args, int threads);
// The scores alone, into args.out [E, H].
void edge_scores(const AttendArgs& args, int threads);
void message(const MessageArgs& args, int threads);
void aggregate(const AggregateArgs& args, int threads);
void linear(const LinearArgs& args, int threads);
void edge_linear(const EdgeLinearArgs& args, int threads);
void gather(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes,
            const void* index, int index_type, int64_t edges, int threads);
void repeat(char* out, int64_t out_stride, const char* x, int64_t x_stride, int64_t row_bytes,
            const int64_t* rowptr, int64_t rows, int threads);

// rowptr [num_rows + 1] and the stable order perm [edges] of index's type; false, with nothing promised about
// either, if a row is out of range.
bool csr(const void* index, int index_type, int64_t edges, int64_t num_rows, int64_t* rowptr, void* perm,
         int threads);

// The same for edges that come in tiles: add each row's edges to counts [rows]; then, with next [rows] at
// each row's first position, position [edges] is each edge's place in the stable order, and next moves on.
// False, with nothing written, if a row is out of range.
bool count_rows(const void* index, int index_type, int64_t edges, int64_t rows, int64_t* counts, int threads);
bool place_rows(const void* index, int index_type, int64_t edges, int64_t rows, int64_t* next,
                int64_t* position, int threads);

// The best of several runs, in bytes per second: a[i] = b[i] + s * c[i], and reads of random rows.
double probe_triad(int64_t bytes, int threads);
double probe_rows(int64_t row_bytes, int64_t bytes, int64_t reads, int threads);

}  // namespace fg
