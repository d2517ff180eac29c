// smp: 16,sockets=2,clusters=2,cores=2,threads=2
// Every CPU under the name that the interrupt controller's redistributors give it: it starts by that name, has it in
// MPIDR_EL1, and gets software-generated and routed interrupts by it, it alone (Arm ARM D24.2; IHI 0069, 2.3, 4.4, 12.2).
#include "test.h"

enum { CPUS = 16, SPI = 79, SGI = 5 };
static volatile uint64_t name[CPUS], seen[CPUS], sgis[CPUS], spis[CPUS];
static uint8_t stacks[CPUS][4096] __attribute__((aligned(16)));
static uint64_t count;

// GICR_TYPER's affinity as MPIDR_EL1 has it.
static uint64_t affinity(uintptr_t redistributor) {
    uint64_t packed = mmio_read(redistributor + 0xc);
    return (packed & 0xffffff) | packed >> 24 << 32;
}

static uint64_t me(void) { return READ_SYSREG(mpidr_el1) & 0xff00fffffful; }

static uint64_t index_of(uint64_t wanted) {
    uint64_t i = 0;
    while (i < count && name[i] != wanted)
        i++;
    return i;
}

static void note(uint32_t intid) {
    uint64_t i = index_of(me());
    if (i < CPUS && intid == SGI)
        sgis[i] = sgis[i] + 1;
    if (i < CPUS && intid == SPI)
        spis[i] = spis[i] + 1;
    ICC_WRITE(EOIR1, intid);
    DSB();
}

static void interrupts_on(void) {
    uintptr_t r = GICR;
    while (affinity(r) != me())
        r += 0x20000;
    mmio_write(r + 0x14, mmio_read(r + 0x14) & ~2u); // WAKER.ProcessorSleep
    while (mmio_read(r + 0x14) & 4) {                // WAKER.ChildrenAsleep
    }
    mmio_write(r + 0x10080, ~0u);      // IGROUPR0
    mmio_write(r + 0x10100, 1u << SGI); // ISENABLER0
    ICC_WRITE(SRE, ICC_READ(SRE) | 1);
    ISB();
    ICC_WRITE(PMR, 0xff);
    ICC_WRITE(IGRPEN1, 1);
    ISB();
    irq_unmask();
}

static void other(void) {
    interrupts_on();
    seen[index_of(me()) % CPUS] = 1;
    DSB();
    for (;;)
        wfi();
}

static void start(uint64_t i) {
    extern void secondary_start(uint64_t);
    uint64_t top = (uint64_t)stacks[i] + sizeof stacks[i];
    *(uint64_t *)(top - 8) = (uint64_t)other;
    DSB();
    CHECK_EQ(psci(PSCI_AFFINITY_INFO, name[i], 0, 0), 1); // OFF
    CHECK_EQ(psci(PSCI_CPU_ON, name[i], (uint64_t)secondary_start, top), 0);
}

static void wait_for(volatile uint64_t *p, uint64_t v) {
    uint64_t end = READ_SYSREG(cntvct_el0) + 60 * READ_SYSREG(cntfrq_el0);
    while (*p != v && READ_SYSREG(cntvct_el0) < end) {
    }
    CHECK_EQ(*p, v);
}

static uint64_t sum(volatile uint64_t *p) {
    uint64_t n = 0;
    for (uint64_t i = 0; i < count; i++)
        n += p[i];
    return n;
}

int main(void) {
    uintptr_t r = GICR;
    for (;; r += 0x20000) {
        name[count++] = affinity(r);
        if (mmio_read(r + 8) & 1 << 4 || count == CPUS) // TYPER.Last
            break;
    }
    CHECK_EQ(count, CPUS);
    CHECK_EQ(name[0], me());
    CHECK(mmio_read(r + 8) & 1 << 4);
    on_irq = note;
    mmio_write(GICD, 1 << 4);
    mmio_write(GICD, 1 << 4 | 1 << 1);
    mmio_write(GICD + 0xc00 + SPI / 16 * 4, 2u << SPI % 16 * 2); // ICFGR: edge
    mmio_write(GICD + 0x80 + SPI / 32 * 4, ~0u);                 // IGROUPR
    mmio_write(GICD + 0x100 + SPI / 32 * 4, 1u << SPI % 32);     // ISENABLER
    interrupts_on();
    seen[0] = 1;
    for (uint64_t i = 1; i < count; i++) {
        start(i);
        wait_for(&seen[i], 1);
        CHECK_EQ(psci(PSCI_AFFINITY_INFO, name[i], 0, 0), 0); // ON
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t a = name[i];
        CHECK((a & 0xff) < 16);
        ICC_WRITE(SGI1R, (a >> 32 & 0xff) << 48 | (a >> 16 & 0xff) << 32 | (a >> 8 & 0xff) << 16 | SGI << 24 | 1ul << (a & 15));
        ISB();
        wait_for(&sgis[i], 1);
        mmio_write64(GICD + 0x6000 + 8 * SPI, a);                // IROUTER
        DSB();
        mmio_write(GICD + 0x200 + SPI / 32 * 4, 1u << SPI % 32); // ISPENDR
        wait_for(&spis[i], 1);
    }
    // Nobody got what was another's.
    CHECK_EQ(sum(sgis), count);
    CHECK_EQ(sum(spis), count);
    // The levels: with MT the lowest one is that of threads.
    if (READ_SYSREG(mpidr_el1) & 1 << 24) {
        CHECK_EQ(name[1], 1);
        CHECK_EQ(name[2], 0x100);
        CHECK_EQ(name[4], 0x10000);
        CHECK_EQ(name[8], 0x100000000);
    }
    CHECK_EQ(psci(PSCI_CPU_ON, 0xff00ffff00ul, (uint64_t)main, 0), (uint64_t)-2); // INVALID_PARAMETERS
    return finish("topology");
}
