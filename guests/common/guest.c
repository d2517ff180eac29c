#include "guest.h"

#include <stdarg.h>

void put_char(char c) {
    while (mmio_read(UART + 0x18) & (1 << 5)) { // FR.TXFF
    }
    mmio_write(UART, (uint8_t)c);
}

static void put_number(uint64_t v, unsigned base, int width, char fill) {
    char text[24];
    int n = 0;
    do {
        text[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    for (; width > n; width--)
        put_char(fill);
    while (n)
        put_char(text[--n]);
}

void print(const char *f, ...) {
    va_list args;
    va_start(args, f);
    for (; *f; f++) {
        if (*f == '\n')
            put_char('\r');
        if (*f != '%') {
            put_char(*f);
            continue;
        }
        char fill = *++f == '0' ? '0' : ' ';
        int width = 0;
        for (; *f >= '0' && *f <= '9'; f++)
            width = width * 10 + *f - '0';
        if (*f == 's') {
            for (const char *s = va_arg(args, const char *); *s; s++, width--)
                put_char(*s);
            for (; width > 0; width--)
                put_char(' ');
        } else if (*f == 'c') {
            put_char((char)va_arg(args, int));
        } else if (*f == 'd') {
            put_number(va_arg(args, uint64_t), 10, width, fill);
        } else if (*f == 'x') {
            put_number(va_arg(args, uint64_t), 16, width, fill);
        } else {
            put_char(*f);
        }
    }
    va_end(args);
}

uintptr_t gic_redistributor(void) {
    // Ours is the one whose TYPER has our affinity; the last one says so.
    uint64_t me = READ_SYSREG(mpidr_el1) & 0xffffff;
    uintptr_t r = GICR;
    while (mmio_read(r + 0xc) != me && !(mmio_read(r + 8) & (1 << 4)))
        r += 0x20000;
    return r;
}

void gic_setup(void) {
    mmio_write(GICD, 1 << 4); // CTLR.ARE before the groups
    mmio_write(GICD, 1 << 4 | 1 << 1);
    uintptr_t r = gic_redistributor();
    mmio_write(r + 0x14, mmio_read(r + 0x14) & ~2u); // WAKER.ProcessorSleep
    while (mmio_read(r + 0x14) & 4) {                // WAKER.ChildrenAsleep
    }
    ICC_WRITE(SRE, ICC_READ(SRE) | 1);
    ISB();
    ICC_WRITE(PMR, 0xff);
    ICC_WRITE(IGRPEN1, 1);
    ISB();
}

void gic_enable(uint32_t intid, uint8_t priority) {
    uintptr_t base = intid < 32 ? gic_redistributor() + 0x10000 : GICD;
    uintptr_t word = intid / 32 * 4, shift = intid % 4 * 8, byte = 0x400 + (intid & ~3u);
    mmio_write(base + 0x80 + word, mmio_read(base + 0x80 + word) | 1u << intid % 32); // IGROUPR
    mmio_write(base + byte, (mmio_read(base + byte) & ~(0xffu << shift)) | (uint32_t)priority << shift);
    if (intid >= 32)
        mmio_write64(GICD + 0x6000 + 8ul * intid, READ_SYSREG(mpidr_el1) & 0xffffff); // IROUTER
    mmio_write(base + 0x100 + word, 1u << intid % 32);                                // ISENABLER
    DSB();
}

_Noreturn void guest_exit(uint64_t status) {
    const uint64_t block[2] = {0x20026, status}; // ADP_Stopped_ApplicationExit
    semihost(0x18, block);
    for (;;)
        wfi();
}

int64_t cpu_start(uint32_t index, void (*function)(void)) {
    extern void secondary_start(uint64_t);
    static uint8_t stacks[8][8192] __attribute__((aligned(16)));
    uint64_t top = (uint64_t)stacks[index % 8 + 1 > 7 ? 7 : index % 8 + 1];
    *(uint64_t *)(top - 8) = (uint64_t)function;
    DSB();
    return psci(PSCI_CPU_ON, index, (uint64_t)secondary_start, top);
}

// The compiler may call these.
void *memset(void *to, int value, size_t n) {
    volatile uint8_t *p = to;
    while (n--)
        *p++ = (uint8_t)value;
    return to;
}
void *memcpy(void *to, const void *from, size_t n) {
    volatile uint8_t *p = to;
    const uint8_t *q = from;
    while (n--)
        *p++ = *q++;
    return to;
}
