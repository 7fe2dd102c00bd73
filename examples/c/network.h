/* Handwritten digits (../data) and a network of tanh layers, a softmax layer last, that learns to read them. Plain C99, which
 * C++ takes too: nothing in here knows of ranks. Values are matrices with a row for each example. */
#ifndef NETWORK_H
#define NETWORK_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIXELS = 64, CLASSES = 10, BATCH = 64 };

typedef struct {
    float pixels[PIXELS]; /* darkness, row by row, from 0 to 1 */
    int label;
} Example;

/* What the files and the memory refuse ends the program. */
static inline void give_up(const char *what, const char *which) {
    fprintf(stderr, "%s: %s\n", which, what);
    exit(1);
}

static inline float *floats(size_t count) {
    float *values = (float *)calloc(count, sizeof *values);
    if (!values) give_up("no memory", "floats");
    return values;
}

/* SplitMix64: the same numbers on every rank and every machine. */
static inline uint64_t random_number(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline void shuffle(Example *examples, size_t count, uint64_t *state) {
    for (size_t last = count; last-- > 1;) {
        size_t other = random_number(state) % (last + 1);
        Example held = examples[last];
        examples[last] = examples[other];
        examples[other] = held;
    }
}

/* All examples, in an order that is random but always the same. 65 bytes each: pixels from 0 to 16, then the digit. */
static inline Example *load_examples(const char *path, size_t *count) {
    unsigned char row[PIXELS + 1];
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) give_up("cannot be read", path);
    long length = ftell(file);
    if (length <= 0 || length % (long)sizeof row != 0) give_up("is no file of digits, 65 bytes each", path);
    rewind(file);
    *count = (size_t)length / sizeof row;
    Example *examples = (Example *)malloc(*count * sizeof *examples);
    if (!examples) give_up("no memory", path);
    for (size_t e = 0; e < *count; e++) {
        if (fread(row, sizeof row, 1, file) != 1 || row[PIXELS] >= CLASSES) give_up("is no file of digits", path);
        for (int p = 0; p < PIXELS; p++) examples[e].pixels[p] = row[p] / 16.0f;
        examples[e].label = row[PIXELS];
    }
    fclose(file);
    uint64_t state = 0x5eed;
    shuffle(examples, *count, &state);
    return examples;
}

typedef struct {
    size_t inputs, outputs;
    size_t place; /* of its parameters in the network's: a row of weights for each input, then the biases */
} Layer;

static inline size_t parameters_of(const Layer *layer) {
    return (layer->inputs + 1) * layer->outputs;
}

typedef struct {
    int depth;
    Layer *layers;
    size_t parameters; /* of all layers */
    float **values;    /* the images, then each layer's outputs, of up to BATCH examples */
    float *error, *below;
} Network;

/* With `hidden` layers of this width before the last one. */
static inline Network make_network(int hidden, size_t width) {
    Network network;
    size_t widest = width > (size_t)CLASSES ? width : (size_t)CLASSES;
    network.depth = hidden + 1;
    network.parameters = 0;
    network.layers = (Layer *)malloc((size_t)network.depth * sizeof *network.layers);
    network.values = (float **)malloc((size_t)(network.depth + 1) * sizeof *network.values);
    if (!network.layers || !network.values) give_up("no memory", "network");
    network.values[0] = floats(BATCH * PIXELS);
    for (int l = 0; l < network.depth; l++) {
        Layer *layer = &network.layers[l];
        layer->inputs = l == 0 ? (size_t)PIXELS : width;
        layer->outputs = l == hidden ? (size_t)CLASSES : width;
        layer->place = network.parameters;
        network.parameters += parameters_of(layer);
        network.values[l + 1] = floats(BATCH * layer->outputs);
    }
    network.error = floats(BATCH * widest);
    network.below = floats(BATCH * widest);
    return network;
}

static inline void free_network(Network *network) {
    for (int l = 0; l <= network->depth; l++) free(network->values[l]);
    free(network->values);
    free(network->layers);
    free(network->error);
    free(network->below);
}

/* The first parameters: weights are random and scaled to the layer's width (Glorot and Bengio, 2010), biases are zero. */
static inline void initialise(const Network *network, uint64_t seed, float *parameters) {
    memset(parameters, 0, network->parameters * sizeof *parameters);
    for (int l = 0; l < network->depth; l++) {
        const Layer *layer = &network->layers[l];
        float scale = sqrtf(6.0f / (float)(layer->inputs + layer->outputs));
        for (size_t out = 0; out < layer->outputs; out++)
            for (size_t in = 0; in < layer->inputs; in++) {
                float unit = (float)(random_number(&seed) >> 40) / (float)(1u << 23) - 1.0f;
                parameters[layer->place + in * layer->outputs + out] = unit * scale;
            }
    }
}

static inline void softmax(float *row) {
    float largest = row[0], sum = 0;
    for (int c = 1; c < CLASSES; c++) largest = fmaxf(largest, row[c]);
    for (int c = 0; c < CLASSES; c++) sum += row[c] = expf(row[c] - largest);
    for (int c = 0; c < CLASSES; c++) row[c] /= sum;
}

/* Fills the values of all layers; the last ones are the probability of each digit. */
static inline void forward(Network *network, const float *parameters, const Example *examples, size_t count) {
    for (size_t e = 0; e < count; e++)
        memcpy(network->values[0] + e * PIXELS, examples[e].pixels, sizeof examples[e].pixels);
    for (int l = 0; l < network->depth; l++) {
        const Layer *layer = &network->layers[l];
        const float *weights = parameters + layer->place, *biases = weights + layer->inputs * layer->outputs;
        memset(network->values[l + 1], 0, count * layer->outputs * sizeof(float));
        for (size_t e = 0; e < count; e++) {
            const float *in = network->values[l] + e * layer->inputs;
            float *out = network->values[l + 1] + e * layer->outputs;
            for (size_t i = 0; i < layer->inputs; i++)
                for (size_t o = 0; o < layer->outputs; o++) out[o] += in[i] * weights[i * layer->outputs + o];
            for (size_t o = 0; o < layer->outputs; o++) out[o] += biases[o];
            if (l + 1 == network->depth)
                softmax(out);
            else
                for (size_t o = 0; o < layer->outputs; o++) out[o] = tanhf(out[o]);
        }
    }
}

/* After forward(): the loss of the examples, summed, and its slope by the last layer's sums as the network's error. */
static inline float loss_of(Network *network, const Example *examples, size_t count) {
    float loss = 0;
    if (count > 0) memcpy(network->error, network->values[network->depth], count * CLASSES * sizeof(float));
    for (size_t e = 0; e < count; e++) {
        float *of_label = &network->error[e * CLASSES + (size_t)examples[e].label];
        loss -= logf(fmaxf(*of_label, FLT_MIN));
        *of_label -= 1.0f;
    }
    return loss;
}

/* The gradient of one layer, summed over the examples; from the last layer to the first, as each turns the network's error
 * into that of the layer below. */
static inline void backward(Network *network, int l, const float *parameters, size_t count, float *gradient) {
    const Layer *layer = &network->layers[l];
    const float *weights = parameters + layer->place;
    float *to_weights = gradient + layer->place, *to_biases = to_weights + layer->inputs * layer->outputs;
    memset(to_weights, 0, parameters_of(layer) * sizeof(float));
    for (size_t e = 0; e < count; e++) {
        const float *in = network->values[l] + e * layer->inputs, *error = network->error + e * layer->outputs;
        for (size_t i = 0; i < layer->inputs; i++)
            for (size_t o = 0; o < layer->outputs; o++) to_weights[i * layer->outputs + o] += error[o] * in[i];
        for (size_t o = 0; o < layer->outputs; o++) to_biases[o] += error[o];
    }
    if (l == 0) return;
    for (size_t e = 0; e < count; e++)
        for (size_t i = 0; i < layer->inputs; i++) {
            const float *error = network->error + e * layer->outputs, *row = weights + i * layer->outputs;
            float sum = 0, value = network->values[l][e * layer->inputs + i];
            for (size_t o = 0; o < layer->outputs; o++) sum += row[o] * error[o];
            network->below[e * layer->inputs + i] = sum * (1.0f - value * value);
        }
    float *done = network->error;
    network->error = network->below;
    network->below = done;
}

/* After forward(): how many examples have their digit as the most probable one. */
static inline size_t count_right(const Network *network, const Example *examples, size_t count) {
    size_t right = 0;
    for (size_t e = 0; e < count; e++) {
        const float *row = network->values[network->depth] + e * CLASSES;
        int best = 0;
        for (int c = 1; c < CLASSES; c++)
            if (row[c] > row[best]) best = c;
        right += best == examples[e].label;
    }
    return right;
}

/* One step of gradient descent with momentum; the gradient is summed over `count` examples. */
static inline void descend(const Network *network, float *parameters, float *velocity, const float *gradient, size_t count) {
    for (size_t p = 0; p < network->parameters; p++) {
        velocity[p] = 0.9f * velocity[p] - 0.1f * gradient[p] / (float)count;
        parameters[p] += velocity[p];
    }
}

#endif
