// Runs the litmus tests that are linked to it (`tests`) on up to four CPUs, each on many sets of locations, and
// counts the outcomes. What they mean is the host's business.
//
// Command line: runs=N (of each test), seed=N.
#include "guest.h"

struct test {
    uint32_t threads, locations, size_log2, outcome_bits;
    uint8_t reads_shift[4], final_shift[4];
    void (*code[4])(const void *);
};
extern const struct test tests[];
extern const uint64_t test_count;

// What a thread's code is called with.
struct parameters {
    uint64_t location[4], stride, count, out, sync, spin, delay_mask, delay;
};

enum { CPUS = 4, SETS = 2048, LONGEST_STRIDE = 256, REGION = SETS * LONGEST_STRIDE + 4096, NONE = 255 };
static uint8_t cells[4][REGION] __attribute__((aligned(4096)));
static uint64_t out[CPUS][SETS] __attribute__((aligned(4096)));
static uint64_t sync[CPUS * 16] __attribute__((aligned(4096)));
static uint32_t histogram[1 << 16];
static struct {
    struct parameters parameters;
    void (*code)(const void *);
    uint64_t ticket;
} jobs[CPUS] __attribute__((aligned(256)));
static uint64_t online, finished, arrived;

// The first gigabyte is devices, the second memory; memory is seen again in the third and the fourth.
static uint64_t level1[512] __attribute__((aligned(4096)));
enum { GIGABYTE = 0x40000000 };

static void mmu_on(void) {
    WRITE_SYSREG(mair_el1, 0x00ff);
    WRITE_SYSREG(tcr_el1, 25ul | 1ul << 8 | 1ul << 10 | 3ul << 12 | 1ul << 23 | 2ul << 32);
    WRITE_SYSREG(ttbr0_el1, (uint64_t)level1);
    __asm__ volatile("isb\n dsb ishst\n tlbi vmalle1\n dsb ish\n isb" : : : "memory");
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) | 1 | 1 << 2 | 1 << 12);
    ISB();
}

static void mmu_tables(void) {
    const uint64_t block = 1 | 1 << 10 | 3 << 8, device = 1ul << 2;
    level1[0] = block | device;
    for (int i = 1; i < 4; i++)
        level1[i] = GIGABYTE | block;
    DSB();
}

void guest_exception(struct frame *f, uint64_t vector) {
    print("exception %d: ESR 0x%x ELR 0x%x FAR 0x%x\n", vector, f->esr, f->elr, f->far);
    guest_exit(99);
}

static uint64_t state;
static uint64_t below(uint64_t n) { // SplitMix64
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (z ^ z >> 31) % n;
}

static void add(uint64_t *p) { __atomic_fetch_add(p, 1, __ATOMIC_SEQ_CST); }
static uint64_t load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }

static void work(uint64_t cpu) {
    add(&arrived);
    // All begin at once, or nearly.
    for (int i = 0; i < 100000 && load(&arrived) < jobs[0].parameters.spin >> 32; i++) {
    }
    struct parameters p = jobs[cpu].parameters;
    p.spin &= 0xffffffff;
    jobs[cpu].code(&p);
    add(&finished);
    __asm__ volatile("dsb ish\n sev" : : : "memory");
}

static void secondary(void) {
    mmu_on();
    uint64_t cpu = READ_SYSREG(mpidr_el1) & 0xff, ticket = 0;
    add(&online);
    for (;;) {
        while (load(&jobs[cpu].ticket) == ticket)
            __asm__ volatile("wfe");
        ticket = load(&jobs[cpu].ticket);
        work(cpu);
    }
}

static uint64_t argument(const char *name, uint64_t otherwise) {
    static char line[256];
    uint64_t block[2] = {(uint64_t)line, sizeof line};
    if (semihost(0x15, block))
        return otherwise;
    for (const char *c = line; *c; c++) {
        const char *a = c, *b = name;
        while (*b && *a == *b)
            a++, b++;
        if (*b || *a != '=')
            continue;
        uint64_t v = 0;
        for (a++; *a >= '0' && *a <= '9'; a++)
            v = v * 10 + (uint64_t)(*a - '0');
        return v;
    }
    return otherwise;
}

// Where the sets of locations are, the same for all threads.
static uint64_t place[4], stride;

static void arrange(const struct test *t) {
    static const uint16_t strides[] = {32, 64, 128, 192, 256, 40};
    stride = strides[below(6)];
    bool together = below(3) == 0; // All locations of a set next to each other
    for (uint32_t l = 0; l < 4; l++) {
        uint64_t offset = below(8) * 8;
        place[l] = together ? (uint64_t)cells[0] + 8 * l : (uint64_t)cells[l] + offset + below(2) * 2048;
        // Anywhere in its eight bytes
        place[l] += below(8 >> t->size_log2) << t->size_log2;
    }
    for (uint32_t l = 0; l < t->locations; l++)
        for (uint64_t i = 0; i < SETS; i++)
            *(uint64_t *)((place[l] & ~7ul) + i * stride) = 0;
}

static uint64_t last(uint32_t size_log2, uint64_t address) {
    switch (size_log2) {
    case 0: return *(volatile uint8_t *)address;
    case 1: return *(volatile uint16_t *)address;
    case 2: return *(volatile uint32_t *)address;
    default: return *(volatile uint64_t *)address;
    }
}

// One batch: every set once.
static void batch(const struct test *t, uint64_t cpus) {
    arrange(t);
    static const uint8_t masks[] = {0, 1, 3, 7, 15, 31, 63};
    static const uint16_t spins[] = {0, 50, 500, 2000};
    uint64_t spin = spins[below(4)], first = below(cpus), cpu_of[CPUS];
    finished = arrived = 0;
    for (uint32_t i = 0; i < CPUS; i++) {
        sync[16 * i] = 0;
        cpu_of[i] = (first + i) % cpus;
    }
    for (uint32_t i = 0; i < t->threads; i++) {
        struct parameters *p = &jobs[cpu_of[i]].parameters;
        uint64_t alias = below(3) * GIGABYTE;
        for (int l = 0; l < 4; l++)
            p->location[l] = place[l] + alias;
        p->stride = stride;
        p->count = SETS + 1;
        p->out = (uint64_t)out[i];
        p->sync = (uint64_t)sync;
        p->spin = spin;
        p->delay_mask = masks[below(7)];
        p->delay = below(4) ? 0 : below(32);
        jobs[cpu_of[i]].code = t->code[i];
    }
    jobs[0].parameters.spin = (uint64_t)t->threads << 32 | spin;
    bool here = false;
    for (uint32_t i = 0; i < t->threads; i++) {
        if (cpu_of[i] == 0)
            here = true;
        else
            __atomic_store_n(&jobs[cpu_of[i]].ticket, jobs[cpu_of[i]].ticket + 1, __ATOMIC_SEQ_CST);
    }
    __asm__ volatile("dsb ish\n sev" : : : "memory");
    if (here)
        work(0);
    while (load(&finished) < t->threads)
        __asm__ volatile("wfe");
    for (uint64_t i = 0; i < SETS; i++) {
        uint64_t outcome = 0;
        for (uint32_t n = 0; n < t->threads; n++)
            outcome |= out[n][i] << t->reads_shift[n];
        for (uint32_t l = 0; l < t->locations; l++)
            if (t->final_shift[l] != NONE)
                outcome |= last(t->size_log2, place[l] + i * stride) << t->final_shift[l];
        histogram[outcome & 0xffff]++;
    }
}

int main(void) {
    uint64_t runs = argument("runs", 10000), cpus = 1;
    state = argument("seed", 1);
    mmu_tables();
    mmu_on();
    while (cpus < CPUS && cpu_start((uint32_t)cpus, secondary) == 0)
        cpus++;
    while (load(&online) < cpus - 1) {
    }
    print("litmus: %d tests on %d CPUs\n", test_count, cpus);
    for (uint64_t n = 0; n < test_count; n++) {
        const struct test *t = &tests[n];
        if (t->threads > cpus)
            continue;
        for (uint64_t done = 0; done < runs; done += SETS)
            batch(t, cpus);
        print("test %d:", n);
        for (uint32_t o = 0; o < 1u << t->outcome_bits; o++) {
            if (histogram[o])
                print(" %x=%d", (uint64_t)o, (uint64_t)histogram[o]);
            histogram[o] = 0;
        }
        print("\n");
    }
    print("litmus: end\n");
    guest_exit(0);
}
