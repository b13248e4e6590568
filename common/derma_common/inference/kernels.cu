// Pictures into a network's input on the GPU: derma_common.preprocess again, operation by operation, so that a network
// sees on the GPU what it was measured on. One thread makes one pixel of the input: three planes of float32, RGB,
// value * factor - shift. Pictures are rows of BGR bytes, `pitch` bytes apart. The tests compile this file as C++.

// OpenCV's bilinear weights have 11 bits.
#define WEIGHT_ONE 2048.0f

struct Sample {
    int first, second;        // the two neighbours
    int of_first, of_second;  // their weights
};

__device__ static int limited(int value, int count) { return value < 0 ? 0 : (value < count ? value : count - 1); }

// Where OpenCV's INTER_LINEAR looks for output pixel `at`, along one axis.
__device__ static struct Sample neighbours(int at, int inputs, int outputs) {
    double scale = 1.0 / ((double)outputs / inputs);
    float where = (float)((at + 0.5) * scale - 0.5);
    int first = (int)floorf(where);
    float part = where - first;
    struct Sample found;
    found.first = limited(first, inputs);
    found.second = limited(first + 1, inputs);
    found.of_first = (int)rintf((1.0f - part) * WEIGHT_ONE);
    found.of_second = (int)rintf(part * WEIGHT_ONE);
    return found;
}

__device__ static int blended(int a, int b, int c, int d, struct Sample x, struct Sample y) {
    int above = a * x.of_first + b * x.of_second;
    int below = c * x.of_first + d * x.of_second;
    return (((y.of_first * (above >> 4)) >> 16) + ((y.of_second * (below >> 4)) >> 16) + 2) >> 2;
}

__device__ static void store(float* out, int x, int y, int width, int height, const float* bgr, const float* factor,
                             const float* shift) {
    for (int plane = 0; plane < 3; plane++) {
        out[((long long)plane * height + y) * width + x] = bgr[2 - plane] * factor[plane] - shift[plane];
    }
}

// The picture of `columns` x `rows` px fitted into the input, centred on grey: preprocess.letterbox and to_tensor.
extern "C" __global__ void letterbox(const unsigned char* picture, int pitch, int columns, int rows, float* out,
                                     int width, int height, int inner_w, int inner_h, int left, int top, int grey,
                                     float factor_r, float factor_g, float factor_b, float shift_r, float shift_g,
                                     float shift_b) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    float factor[3] = {factor_r, factor_g, factor_b}, shift[3] = {shift_r, shift_g, shift_b};
    float bgr[3] = {(float)grey, (float)grey, (float)grey};
    if (x >= left && x < left + inner_w && y >= top && y < top + inner_h) {
        struct Sample across = neighbours(x - left, columns, inner_w), down = neighbours(y - top, rows, inner_h);
        const unsigned char* above = picture + (long long)down.first * pitch;
        const unsigned char* below = picture + (long long)down.second * pitch;
        for (int c = 0; c < 3; c++) {
            bgr[c] = (float)blended(above[3 * across.first + c], above[3 * across.second + c],
                                    below[3 * across.first + c], below[3 * across.second + c], across, down);
        }
    }
    store(out, x, y, width, height, bgr, factor, shift);
}

// The weight of input pixel `at` in the mean over [from, to), as OpenCV's INTER_AREA counts it.
__device__ static float share(int at, float from, float to) {
    float inside = fminf((float)(at + 1), to) - fmaxf((float)at, from);
    return inside > 1e-3f ? inside : 0.0f;
}

// A square of the picture with its corner at (x1, y1), which may reach over the edges, as a size x size input:
// preprocess.cut and to_tensor. The border is repeated outside; shrinking averages, growing is bilinear.
extern "C" __global__ void crop(const unsigned char* picture, int pitch, int columns, int rows, float* out, int x1,
                                int y1, int side, int size, float factor_r, float factor_g, float factor_b,
                                float shift_r, float shift_g, float shift_b) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= size || y >= size) return;
    float factor[3] = {factor_r, factor_g, factor_b}, shift[3] = {shift_r, shift_g, shift_b};
    float bgr[3] = {0.0f, 0.0f, 0.0f};
    if (side > size) {
        double scale = (double)side / size;
        float left = (float)(x * scale), right = (float)((x + 1) * scale);
        float top = (float)(y * scale), bottom = (float)((y + 1) * scale);
        float total = 0.0f;
        for (int row = (int)top; row < side && row < bottom; row++) {
            const unsigned char* line = picture + (long long)limited(y1 + row, rows) * pitch;
            for (int column = (int)left; column < side && column < right; column++) {
                float weight = share(row, top, bottom) * share(column, left, right);
                const unsigned char* pixel = line + 3 * limited(x1 + column, columns);
                for (int c = 0; c < 3; c++) bgr[c] += weight * pixel[c];
                total += weight;
            }
        }
        for (int c = 0; c < 3; c++) bgr[c] = rintf(bgr[c] / total);
    } else {
        struct Sample across = neighbours(x, side, size), down = neighbours(y, side, size);
        const unsigned char* above = picture + (long long)limited(y1 + down.first, rows) * pitch;
        const unsigned char* below = picture + (long long)limited(y1 + down.second, rows) * pitch;
        int first = 3 * limited(x1 + across.first, columns), second = 3 * limited(x1 + across.second, columns);
        for (int c = 0; c < 3; c++) {
            bgr[c] = (float)blended(above[first + c], above[second + c], below[first + c], below[second + c], across,
                                    down);
        }
    }
    store(out, x, y, size, size, bgr, factor, shift);
}
