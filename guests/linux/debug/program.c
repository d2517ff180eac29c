// What gdb and perf look at in the Linux guest. The first argument chooses what it does; everything is counted, so
// that each breakpoint and each watchpoint has one right number of hits.

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROUNDS 5
#define THREADS 4
#define MEETINGS 25

// Neighbours, of which a watchpoint must not see the others.
struct {
    volatile uint8_t before;
    volatile uint8_t one;
    volatile uint16_t two;
    volatile uint32_t four;
    volatile uint64_t eight;
    volatile uint8_t after;
} cell;

// Written and read by wide, exclusive and block instructions.
struct {
    _Alignas(64) uint64_t before[8];
    uint64_t watched;
    uint64_t after[7];
} wide;

volatile uint64_t shared;
static unsigned many = 1000;
atomic_ulong total;
volatile uint64_t met[THREADS];
pthread_barrier_t begin;

void ladder(void);
void call(void);
void pair(void *), vector(void *), exclusive(void *), block(void *), above(void *);

// Instructions of which each step is known: 300 additions; a system call between two additions; stores that are not
// plain ones.
asm(".text\n"
    ".global ladder, call, pair, vector, exclusive, block, above\n"
    ".type ladder, %function\n.type call, %function\n.type pair, %function\n.type vector, %function\n"
    ".type exclusive, %function\n.type block, %function\n.type above, %function\n"
    "ladder: mov x0, #0\n"
    ".rept 300\n add x0, x0, #1\n.endr\n ret\n"
    "call: mov x1, #1\n mov x8, #173\n svc #0\n add x1, x1, #1\n add x1, x1, #1\n ret\n"
    // The watched doubleword is at +64.
    "pair: stp x0, x0, [x0, #56]\n ret\n"
    "vector: movi v0.16b, #7\n str q0, [x0, #64]\n ret\n"
    "exclusive: add x1, x0, #64\n"
    "1: ldxr x2, [x1]\n add x2, x2, #1\n stxr w3, x2, [x1]\n cbnz w3, 1b\n ret\n"
    "block: add x1, x0, #64\n dc zva, x1\n ret\n"
    // The last byte before it and the first one behind it.
    "above: strb w0, [x0, #63]\n strb w0, [x0, #72]\n ret\n");

__attribute__((noinline)) void write_all(unsigned n)
{
    cell.before = n;
    cell.one = n;
    cell.two = n;
    cell.four = n;
    cell.eight = n;
    cell.after = n;
}

__attribute__((noinline)) uint64_t read_all(void)
{
    return cell.before + cell.one + cell.two + cell.four + cell.eight + cell.after;
}

__attribute__((noinline)) int deep(int n)
{
    if (n == 0)
        return 7;
    return deep(n - 1) + 1;
}

__attribute__((noinline)) void meet(long thread, int n)
{
    atomic_fetch_add(&total, 1);
    met[thread] = n + 1;
}

static void *visitor(void *argument)
{
    pthread_barrier_wait(&begin);
    for (int n = 0; n < MEETINGS; n++)
        meet((long)argument, n);
    return 0;
}

static void *writer(void *argument)
{
    pthread_barrier_wait(&begin);
    for (unsigned n = 0; n < many; n++)
        shared = n;
    return argument;
}

static void threads(void *(*body)(void *))
{
    pthread_t t[THREADS];
    pthread_barrier_init(&begin, 0, THREADS);
    for (long i = 0; i < THREADS; i++)
        pthread_create(&t[i], 0, body, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], 0);
}

__attribute__((noinline)) uint64_t busy_function(uint64_t rounds)
{
    uint64_t x = 1;
    for (uint64_t i = 0; i < rounds; i++)
        asm volatile("mul %0, %0, %1\n add %0, %0, %1" : "+r"(x) : "r"(i));
    return x;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    uint64_t number = argc > 2 ? strtoull(argv[2], 0, 0) : 0;
    if (number)
        many = number;
    if (!strcmp(what, "data")) {
        for (unsigned n = 1; n <= ROUNDS; n++) {
            write_all(n);
            read_all();
        }
        printf("deep %d\n", deep(5));
    } else if (!strcmp(what, "wide")) {
        pair(&wide), vector(&wide), exclusive(&wide), block(&wide), above(&wide);
    } else if (!strcmp(what, "steps")) {
        ladder();
        call();
    } else if (!strcmp(what, "meet")) {
        threads(visitor);
        printf("total %lu\n", (unsigned long)total);
    } else if (!strcmp(what, "write")) {
        threads(writer);
    } else if (!strcmp(what, "busy")) {
        printf("%d\n", (int)busy_function(number));
    } else if (!strcmp(what, "calls")) {
        for (unsigned n = 0; n < many; n++)
            syscall(SYS_getppid);
    } else {
        return 1;
    }
    return 0;
}
