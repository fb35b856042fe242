// Attention of packed texts on a CPU, forward and backward, with dropout by counter.py's rule.
// native.py says what is different about it; it compiles this file and calls the functions at its end.
//
// One task is one head of one text: its keys and values are copied side by side once, then its queries
// are taken QUERIES at a time, and all their scores, (QUERIES, n), are in the cache while they are needed.
// All five matrix products are `multiply`: a tile of ROWS x PANELS vectors stays in registers.
// Vectors are the extension that GCC and Clang share, so one text serves every processor.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <vector>

#if defined(__AVX512F__)
constexpr int BYTES = 64, PANELS = 4;  // 32 registers: 6 x 4 sums, 4 of b, 1 of a
#elif defined(__AVX__)
constexpr int BYTES = 32, PANELS = 2;  // 16 registers: 6 x 2 sums, 2 of b, 1 of a
#else
constexpr int BYTES = 16, PANELS = 2;
#endif
constexpr int ROWS = 6, QUERIES = 48, AHEAD = 16;

template <typename T> struct Lanes;
template <> struct Lanes<float> {
  typedef float vec __attribute__((vector_size(BYTES)));
  typedef int32_t flags __attribute__((vector_size(BYTES)));
  typedef uint32_t draws __attribute__((vector_size(BYTES)));
  typedef int32_t signs __attribute__((vector_size(BYTES)));
};
template <> struct Lanes<double> {
  typedef double vec __attribute__((vector_size(BYTES)));
  typedef int64_t flags __attribute__((vector_size(BYTES)));
  typedef uint32_t draws __attribute__((vector_size(BYTES / 2)));
  typedef int32_t signs __attribute__((vector_size(BYTES / 2)));
};
template <typename T> using vec = typename Lanes<T>::vec;
template <typename T> constexpr int WIDE = BYTES / sizeof(T);        // numbers in a vector
template <typename T> constexpr int PANEL = PANELS * WIDE<T>;        // columns in a panel
template <typename T> vec<T> load(const T* p) { vec<T> v; std::memcpy(&v, p, BYTES); return v; }
template <typename T> void store(T* p, vec<T> v) { std::memcpy(p, &v, BYTES); }
template <typename T> long whole(long n) { return (n + WIDE<T> - 1) / WIDE<T> * WIDE<T>; }
template <typename T> long whole_panels(long n) { return (n + PANEL<T> - 1) / PANEL<T> * PANEL<T>; }

// ---- e^x -------------------------------------------------------------------------------------------

// Cephes' expf: x = k ln 2 + r, e^x = 2^k e^r with a polynomial for e^r. An infinity below gives 0, a NaN a NaN.
inline vec<float> exponential(vec<float> x) {
  typedef vec<float> V;
  typedef Lanes<float>::flags I;
  const V low = V{} - 87.33f;
  const I tiny = x < low;
  V y = tiny ? low : x;
  V k = y * 1.44269504f + 12582912.f;  // adding 1.5 * 2^23 rounds to a whole number
  const I whole_k = (I)k;
  k -= 12582912.f;
  V r = y - k * 0.693359375f;
  r = r + k * 2.12194440e-4f;
  V e = r * 1.9875691500e-4f + 1.3981999507e-3f;
  e = e * r + 8.3334519073e-3f;
  e = e * r + 4.1665795894e-2f;
  e = e * r + 1.6666665459e-1f;
  e = e * r + 5.0000001201e-1f;
  e = e * r * r + r + 1.f;
  const I power = (whole_k << 23) + 0x3f800000;  // 2^k: k goes where a float keeps its exponent
  e *= (V)power;
  return tiny ? V{} : e;
}

inline vec<double> exponential(vec<double> x) {
  for (int i = 0; i < WIDE<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

// ---- dropout, as counter.py defines it -------------------------------------------------------------

struct Words { uint32_t a, b, c, d; };

Words philox(Words w, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const uint64_t p0 = uint64_t(w.a) * 0xD2511F53u, p1 = uint64_t(w.c) * 0xCD9E8D57u;
    w = {uint32_t(p1 >> 32) ^ w.b ^ k0, uint32_t(p1), uint32_t(p0 >> 32) ^ w.d ^ k1, uint32_t(p0)};
  }
  return w;
}

struct Dropout {
  int64_t seed, step, layer;
  double scale;  // of what is kept: 1 / (1 - p)
  int32_t threshold, on;
};

Words text_key(const Dropout& drop, int64_t row) {
  const auto low = [](int64_t x) { return uint32_t(x); };
  const auto high = [](int64_t x) { return uint32_t(uint64_t(x) >> 32); };
  const Words w = philox({low(drop.seed), high(drop.seed), low(drop.step), high(drop.step)}, low(drop.layer), 0);
  return philox({low(row), high(row), w.c, w.d}, w.a, w.b);
}

// Ones where the keys of one vector, which begins at `key`, are kept.
template <typename T> typename Lanes<T>::flags kept(Words query, uint32_t key, int32_t threshold) {
  typename Lanes<T>::draws x;
  for (int i = 0; i < WIDE<T>; ++i) x[i] = i;
  x = (x + key) * 0x9E3779B9u + query.a;
  x ^= x >> 16; x *= 0x21F0AAADu; x ^= x >> 15;
  x ^= query.b; x *= 0xD35A2D97u; x ^= x >> 15;
  const auto yes = typename Lanes<T>::signs(x) >= threshold;
  return __builtin_convertvector(yes, typename Lanes<T>::flags);
}

// ---- matrix products -------------------------------------------------------------------------------

// c (M, V vectors) = or += a (M, depth) b (depth, V vectors); a's element (i, k) stands at i * down + k * right.
template <typename T, int M, int V>
inline void tile(long depth, const T* a, long down, long right, const T* b, long b_row, T* c, long c_row, bool add) {
  vec<T> sum[M][V];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) sum[i][v] = add ? load(c + i * c_row + v * WIDE<T>) : vec<T>{};
  for (long k = 0; k < depth; ++k) {
    vec<T> right_side[V];
    for (int v = 0; v < V; ++v) right_side[v] = load(b + k * b_row + v * WIDE<T>);
    for (int i = 0; i < M; ++i) {
      const T left = a[i * down + k * right];
      for (int v = 0; v < V; ++v) sum[i][v] += left * right_side[v];
    }
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) store(c + i * c_row + v * WIDE<T>, sum[i][v]);
}

template <typename T, int M, int V> struct Rest {  // the last rows, fewer than a tile's
  static void run(long m, long depth, const T* a, long down, long right, const T* b, long b_row, T* c, long c_row, bool add) {
    if (m == M) tile<T, M, V>(depth, a, down, right, b, b_row, c, c_row, add);
    else Rest<T, M - 1, V>::run(m, depth, a, down, right, b, b_row, c, c_row, add);
  }
};
template <typename T, int V> struct Rest<T, 0, V> {
  static void run(long, long, const T*, long, long, const T*, long, T*, long, bool) {}
};

template <typename T, int V>
void column(long m, long depth, const T* a, long down, long right, const T* b, long b_row, T* c, long c_row, bool add) {
  long i = 0;
  for (; i + ROWS <= m; i += ROWS)
    tile<T, ROWS, V>(depth, a + i * down, down, right, b, b_row, c + i * c_row, c_row, add);
  Rest<T, ROWS - 1, V>::run(m - i, depth, a + i * down, down, right, b, b_row, c + i * c_row, c_row, add);
}

// c (m, n) = or += a (m, depth) b (depth, n), n whole vectors. b lies in panels, `next` apart, rows b_row apart.
template <typename T>
void multiply(long m, long n, long depth, const T* a, long down, long right, const T* b, long b_row, long next,
              T* c, long c_row, bool add) {
  for (long j = 0; j < n; j += PANEL<T>, b += next) {
    const long vectors = std::min<long>(n - j, PANEL<T>) / WIDE<T>;
    if (vectors == 1) column<T, 1>(m, depth, a, down, right, b, b_row, c + j, c_row, add);
    else if (vectors == 2) column<T, 2>(m, depth, a, down, right, b, b_row, c + j, c_row, add);
    else if (vectors == 3) column<T, PANELS < 3 ? 2 : 3>(m, depth, a, down, right, b, b_row, c + j, c_row, add);
    else column<T, PANELS>(m, depth, a, down, right, b, b_row, c + j, c_row, add);
  }
}

// ---- copies ----------------------------------------------------------------------------------------

template <typename T> struct Matrix {  // rows of one head in a tensor (N, H, K): a token's next stands `token` on
  const T* data;
  long token;
};

// (n, width) side by side, rows of `padded` numbers, zeros behind; each number times `scale`.
template <typename T> void copy(Matrix<T> x, long n, long width, long padded, T scale, T* out) {
  for (long i = 0; i < n; ++i) {
    for (long k = 0; k < width; k += 64 / sizeof(T))  // rows stand too far apart for the processor to foresee
      __builtin_prefetch(x.data + std::min(i + AHEAD, n - 1) * x.token + k);
    for (long k = 0; k < width; ++k) out[i * padded + k] = x.data[i * x.token + k] * scale;
    for (long k = width; k < padded; ++k) out[i * padded + k] = 0;
  }
}

// The same turned over, (width, n), in panels: each holds PANEL keys, k by k.
template <typename T> void turn(const T* x, long n, long width, long padded, T* out) {
  for (long j = 0; j < n; j += PANEL<T>, out += width * PANEL<T>)
    for (long k = 0; k < width; ++k)
      for (long i = 0; i < PANEL<T>; ++i) out[k * PANEL<T> + i] = j + i < n ? x[(j + i) * padded + k] : T(0);
}

template <typename T> struct Scratch {  // a thread's memory, handed out in pieces; a copy begins afresh
  T* next;
  T* take(long numbers) { T* p = next; next += whole<T>(numbers); return p; }
};

// ---- the kernel ------------------------------------------------------------------------------------

template <typename T> struct Call {
  const T *q, *k, *v, *out, *grad;  // (N, H, K); forward writes `made`, backward made, made_k, made_v
  int64_t q_token, q_head, k_token, k_head, v_token, v_head, grad_token, grad_head;  // strides
  T *made, *made_k, *made_v, *lse;  // (N, H, K), contiguous; lse (H, N)
  const int32_t* starts;            // (B + 1,)
  const int64_t* rows;              // (B,)
  int64_t texts, tokens, heads, width;
  double scale;
  Dropout drop;
  int64_t near, left, right;        // near: whether a query sees only keys from left before to right behind it
  const T* bias;                    // (H, reach) by distance, its middle the query itself; or null
  T* made_bias;                     // (B, H, reach), zeros
  int64_t reach;
};

// The keys that a block of queries sees: from `begin`, which a panel begins with, to `end`.
struct Span { long begin, end; };
template <typename T> Span span(const Call<T>& x, long first, long m, long n) {
  if (!x.near) return {0, n};
  return {std::max<long>(0, first - x.left) / PANEL<T> * PANEL<T>, std::min<long>(n, first + m + x.right)};
}

// What other families add to a query's scores of these keys: a number by distance, -inf beyond a window.
template <typename T> void add_between(const Call<T>& x, long head, long query, Span keys, T* row) {
  const long n = keys.end - keys.begin;
  if (x.bias) {
    const T* far = x.bias + head * x.reach + x.reach / 2 + keys.begin - query;
    long j = 0;
    for (; j + WIDE<T> <= n; j += WIDE<T>) store(row + j, load(row + j) + load(far + j));
    for (; j < n; ++j) row[j] += far[j];
  }
  if (x.near) {
    const T never = -std::numeric_limits<T>::infinity();
    std::fill(row, row + std::max<long>(0, query - x.left - keys.begin), never);
    std::fill(row + std::min<long>(n, query + x.right + 1 - keys.begin), row + n, never);
  }
}

template <typename T> void forward_head(const Call<T>& x, long text, long head, Scratch<T> memory) {
  const long start = x.starts[text], n = x.starts[text + 1] - start, K = x.width, padded = whole<T>(K);
  const long row_length = whole<T>(n) + WIDE<T>;  // no power of two, whose rows would meet in the cache
  T *keys = memory.take(K * whole_panels<T>(n)), *values = memory.take(n * padded);
  T *scores = memory.take(QUERIES * row_length), *queries = memory.take(QUERIES * padded);
  T* context = memory.take(QUERIES * padded);
  copy<T>({x.k + start * x.k_token + head * x.k_head, x.k_token}, n, K, padded, 1, values);
  turn<T>(values, n, K, padded, keys);
  copy<T>({x.v + start * x.v_token + head * x.v_head, x.v_token}, n, K, padded, 1, values);
  const Words text_words = x.drop.on ? text_key(x.drop, x.rows[text]) : Words{};
  for (long first = 0; first < n; first += QUERIES) {
    const long m = std::min<long>(QUERIES, n - first);
    copy<T>({x.q + (start + first) * x.q_token + head * x.q_head, x.q_token}, m, K, padded, T(x.scale), queries);
    const Span see = span(x, first, m, n);
    const long seen = see.end - see.begin;
    multiply<T>(m, whole<T>(seen), K, queries, padded, 1, keys + see.begin * K, PANEL<T>, K * PANEL<T>, scores, row_length, false);
    T factor[QUERIES];
    for (long i = 0; i < m; ++i) {
      T* row = scores + i * row_length;
      add_between(x, head, first + i, see, row);
      for (long j = seen; j < whole<T>(seen); ++j) row[j] = -std::numeric_limits<T>::infinity();
      vec<T> most = load(row), sum{};
      for (long j = WIDE<T>; j < seen; j += WIDE<T>) {
        const vec<T> score = load(row + j);
        most = score > most ? score : most;
      }
      T largest = most[0];
      for (int l = 1; l < WIDE<T>; ++l) largest = std::max(largest, most[l]);
      Words query{};
      if (x.drop.on) query = philox({uint32_t(first + i), uint32_t(head), text_words.c, text_words.d}, text_words.a, text_words.b);
      for (long j = 0; j < seen; j += WIDE<T>) {
        vec<T> e = exponential(load(row + j) - largest);
        sum += e;
        if (x.drop.on) e = kept<T>(query, see.begin + j, x.drop.threshold) ? e : vec<T>{};
        store(row + j, e);
      }
      T total = 0;
      for (int l = 0; l < WIDE<T>; ++l) total += sum[l];
      x.lse[head * x.tokens + start + first + i] = largest + std::log(total);
      factor[i] = T(x.drop.on ? x.drop.scale : 1.0) / total;
    }
    multiply<T>(m, padded, seen, scores, row_length, 1, values + see.begin * padded, padded, PANEL<T>, context, padded, false);
    for (long i = 0; i < m; ++i)
      for (long k = 0; k < K; ++k)
        x.made[((start + first + i) * x.heads + head) * K + k] = context[i * padded + k] * factor[i];
  }
}

template <typename T> void backward_head(const Call<T>& x, long text, long head, Scratch<T> memory) {
  const long start = x.starts[text], n = x.starts[text + 1] - start, K = x.width, padded = whole<T>(K), H = x.heads;
  const long row_length = whole<T>(n) + WIDE<T>, panels = whole_panels<T>(n);
  T *keys = memory.take(n * padded), *keys_turned = memory.take(K * panels), *values_turned = memory.take(K * panels);
  T *dk = memory.take(n * padded), *dv = memory.take(n * padded);
  T *probs = memory.take(QUERIES * row_length), *grads = memory.take(QUERIES * row_length);
  T *queries = memory.take(QUERIES * padded), *grad = memory.take(QUERIES * padded), *dq = memory.take(QUERIES * padded);
  copy<T>({x.v + start * x.v_token + head * x.v_head, x.v_token}, n, K, padded, 1, keys);
  turn<T>(keys, n, K, padded, values_turned);
  copy<T>({x.k + start * x.k_token + head * x.k_head, x.k_token}, n, K, padded, 1, keys);
  turn<T>(keys, n, K, padded, keys_turned);
  const Words text_words = x.drop.on ? text_key(x.drop, x.rows[text]) : Words{};
  const T scaled = T(x.drop.on ? x.drop.scale : 1.0);
  std::fill(dk, dk + n * padded, T(0));
  std::fill(dv, dv + n * padded, T(0));
  for (long first = 0; first < n; first += QUERIES) {
    const long m = std::min<long>(QUERIES, n - first);
    copy<T>({x.q + (start + first) * x.q_token + head * x.q_head, x.q_token}, m, K, padded, T(x.scale), queries);
    copy<T>({x.grad + (start + first) * x.grad_token + head * x.grad_head, x.grad_token}, m, K, padded, 1, grad);
    const Span see = span(x, first, m, n);
    const long seen = see.end - see.begin, turned = see.begin * K, lying = see.begin * padded;
    multiply<T>(m, whole<T>(seen), K, queries, padded, 1, keys_turned + turned, PANEL<T>, K * PANEL<T>, probs, row_length, false);
    multiply<T>(m, whole<T>(seen), K, grad, padded, 1, values_turned + turned, PANEL<T>, K * PANEL<T>, grads, row_length, false);
    for (long i = 0; i < m; ++i) {
      T *p_row = probs + i * row_length, *g_row = grads + i * row_length;
      add_between(x, head, first + i, see, p_row);
      const T lse = x.lse[head * x.tokens + start + first + i];
      const T* out = x.out + ((start + first + i) * H + head) * K;
      T mean = 0;  // sum over the keys of p * dp, which is out * grad, dropout and all
      for (long k = 0; k < K; ++k) mean += out[k] * grad[i * padded + k];
      Words query{};
      if (x.drop.on) query = philox({uint32_t(first + i), uint32_t(head), text_words.c, text_words.d}, text_words.a, text_words.b);
      for (long j = 0; j < seen; j += WIDE<T>) {
        const vec<T> p = exponential(load(p_row + j) - lse);
        vec<T> left = p, g = load(g_row + j);  // what dropout left of p and of its gradient
        if (x.drop.on) {
          const auto keep = kept<T>(query, see.begin + j, x.drop.threshold);
          left = keep ? p * scaled : vec<T>{};
          g = keep ? g * scaled : vec<T>{};
        }
        store(p_row + j, left);
        store(g_row + j, p * (g - mean));
      }
      if (x.bias) {
        T* far = x.made_bias + (text * H + head) * x.reach + x.reach / 2 + see.begin - first - i;
        for (long j = 0; j < seen; ++j) far[j] += g_row[j];
      }
    }
    multiply<T>(m, padded, seen, grads, row_length, 1, keys + lying, padded, PANEL<T>, dq, padded, false);
    multiply<T>(seen, padded, m, grads, 1, row_length, queries, padded, PANEL<T>, dk + lying, padded, true);
    multiply<T>(seen, padded, m, probs, 1, row_length, grad, padded, PANEL<T>, dv + lying, padded, true);
    for (long i = 0; i < m; ++i)
      for (long k = 0; k < K; ++k)
        x.made[((start + first + i) * H + head) * K + k] = dq[i * padded + k] * T(x.scale);
  }
  for (long i = 0; i < n; ++i)
    for (long k = 0; k < K; ++k) {
      x.made_k[((start + i) * H + head) * K + k] = dk[i * padded + k];
      x.made_v[((start + i) * H + head) * K + k] = dv[i * padded + k];
    }
}

template <typename T> void run(const Call<T>& x, bool backward, int threads) {
  long n = 0;
  for (long text = 0; text < x.texts; ++text) n = std::max<long>(n, x.starts[text + 1] - x.starts[text]);
  const long padded = whole<T>(x.width), panels = whole_panels<T>(n), row_length = whole<T>(n) + WIDE<T>;
  const long numbers = backward ? n * 3 * padded + 2 * x.width * panels + QUERIES * (2 * row_length + 3 * padded)
                                : n * padded + x.width * panels + QUERIES * (row_length + 2 * padded);
#pragma omp parallel num_threads(threads)
  {
    std::vector<T> memory(numbers + BYTES);
    const auto border = (reinterpret_cast<uintptr_t>(memory.data()) + BYTES - 1) / BYTES * BYTES;
    const Scratch<T> scratch{reinterpret_cast<T*>(border)};
#pragma omp for schedule(dynamic, 1)
    for (long task = 0; task < x.texts * x.heads; ++task) {
      if (backward) backward_head<T>(x, task / x.heads, task % x.heads, scratch);
      else forward_head<T>(x, task / x.heads, task % x.heads, scratch);
    }
  }
}

// ---- dropout of hidden states ------------------------------------------------------------------------

// Every number of x (tokens, width) kept and scaled, or 0: a token draws as a query of head 0 would, its
// columns as keys. Forward and backward are the same.
template <typename T>
void drop_hidden(const T* x, T* out, const int32_t* starts, const int64_t* rows, long texts, long width,
                 const Dropout& drop, int threads) {
#pragma omp parallel num_threads(threads)
  {
    long text = -1;
    Words text_words{};
#pragma omp for schedule(static)
    for (long token = 0; token < starts[texts]; ++token) {
      if (text < 0 || token >= starts[text + 1]) {
        text = std::upper_bound(starts, starts + texts + 1, int32_t(token)) - starts - 1;
        text_words = text_key(drop, rows[text]);
      }
      const Words query =
          philox({uint32_t(token - starts[text]), 0, text_words.c, text_words.d}, text_words.a, text_words.b);
      const T *from = x + token * width, scale = T(drop.scale);
      T* to = out + token * width;
      long j = 0;
      for (; j + WIDE<T> <= width; j += WIDE<T>) {
        const auto keep = kept<T>(query, j, drop.threshold);
        store(to + j, keep ? load(from + j) * scale : vec<T>{});
      }
      const auto keep = kept<T>(query, j, drop.threshold);
      for (long l = 0; j + l < width; ++l) to[j + l] = keep[l] ? from[j + l] * scale : T(0);
    }
  }
}

extern "C" {
void dropout_float(const float* x, float* out, const int32_t* starts, const int64_t* rows, int64_t texts, int64_t width,
                   const Dropout* drop, int threads) { drop_hidden(x, out, starts, rows, texts, width, *drop, threads); }
void dropout_double(const double* x, double* out, const int32_t* starts, const int64_t* rows, int64_t texts, int64_t width,
                    const Dropout* drop, int threads) { drop_hidden(x, out, starts, rows, texts, width, *drop, threads); }
void attention_float(const Call<float>* call, int backward, int threads) { run(*call, backward, threads); }
void attention_double(const Call<double>* call, int backward, int threads) { run(*call, backward, threads); }
}
