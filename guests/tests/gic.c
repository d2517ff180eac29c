// smp: 2
// GICv3: software-generated interrupts to oneself and others, priorities and preemption, masks, pending and
// active state, both ways of ending an interrupt, shared interrupts (GIC architecture, IHI 0069).
#include "test.h"

static volatile uint32_t order[32], taken;
static volatile uint32_t other_got, other_ready;
static bool nested, split_eoi;

static void send_sgi(uint32_t intid, uint32_t cpu) {
    ICC_WRITE(SGI1R, (uint64_t)intid << 24 | 1ul << cpu);
    ISB();
}

static void note(uint32_t intid) {
    if (READ_SYSREG(mpidr_el1) & 0xff) {
        other_got = intid;
        ICC_WRITE(EOIR1, intid);
        DSB();
        return;
    }
    order[taken++ % 32] = intid;
    if (nested && intid == 1) {
        // Lower priority must wait, higher must not.
        send_sgi(2, 0);
        send_sgi(3, 0);
        irq_unmask();
        for (int i = 0; i < 200; i++)
            ISB();
        irq_mask();
        order[taken++ % 32] = 100;
    }
    if (intid < 1020)
        ICC_WRITE(EOIR1, intid);
    if (split_eoi && intid < 1020)
        ICC_WRITE(DIR, intid);
    ISB();
}

// Waits a bounded while until `taken` reaches n.
static void settle(uint32_t n) {
    for (int i = 0; i < 2000000 && taken < n; i++)
        ISB();
    for (int i = 0; i < 200; i++)
        ISB();
    CHECK_EQ(taken, n);
}

static void other(void) {
    gic_setup();
    gic_enable(5, 0x80);
    irq_unmask();
    other_ready = 1;
    DSB();
    for (;;)
        wfi();
}

static void to_oneself(void) {
    taken = 0;
    send_sgi(1, 0);
    settle(1);
    CHECK_EQ(order[0], 1);
    // Masked by PSTATE: stays pending, and the highest priority shows.
    irq_mask();
    send_sgi(2, 0);
    send_sgi(3, 0);
    CHECK_EQ(ICC_READ(HPPIR1), 3);
    CHECK_EQ(mmio_read(gic_redistributor() + 0x10200) & 0xffff, 1 << 2 | 1 << 3); // GICR_ISPENDR0
    irq_unmask();
    settle(3);
    CHECK_EQ(order[1], 3);
    CHECK_EQ(order[2], 2);
    // Masked by priority.
    ICC_WRITE(PMR, 0x60);
    ISB();
    send_sgi(1, 0);
    settle(3);
    CHECK_EQ(ICC_READ(IAR1), 1023);
    ICC_WRITE(PMR, 0xff);
    ISB();
    settle(4);
    CHECK_EQ(order[3], 1);
    // Nothing pending reads as spurious.
    CHECK_EQ(ICC_READ(IAR1), 1023);
}

static void preemption(void) {
    taken = 0;
    nested = true;
    ICC_WRITE(BPR1, 0);
    ISB();
    send_sgi(1, 0);
    settle(4);
    CHECK_EQ(order[0], 1);
    CHECK_EQ(order[1], 3);   // Preempts
    CHECK_EQ(order[2], 100); // Back in 1
    CHECK_EQ(order[3], 2);   // After 1 has ended
    nested = false;
    CHECK_EQ(ICC_READ(RPR), 0xff);
}

static void states(void) {
    uintptr_t sgi = gic_redistributor() + 0x10000;
    irq_mask();
    // Set pending by register, taken by hand.
    mmio_write(sgi + 0x200, 1 << 4); // ISPENDR0
    DSB();
    CHECK_EQ(ICC_READ(IAR1), 4);
    DSB();
    CHECK_EQ(mmio_read(sgi + 0x300) & 0xffff, 1 << 4); // ISACTIVER0
    CHECK_EQ(mmio_read(sgi + 0x200) & 0xffff, 0);
    CHECK_EQ(ICC_READ(RPR), 0x80);
    // Active: does not come again until it has ended, but may be pending meanwhile.
    send_sgi(4, 0);
    CHECK_EQ(ICC_READ(IAR1), 1023);
    CHECK_EQ(mmio_read(sgi + 0x200) & 0xffff, 1 << 4);
    ICC_WRITE(EOIR1, 4);
    ISB();
    CHECK_EQ(mmio_read(sgi + 0x300) & 0xffff, 0);
    CHECK_EQ(ICC_READ(IAR1), 4);
    ICC_WRITE(EOIR1, 4);
    ISB();
    // Split: EOIR drops the priority, DIR deactivates.
    ICC_WRITE(CTLR, ICC_READ(CTLR) | 2);
    ISB();
    send_sgi(4, 0);
    CHECK_EQ(ICC_READ(IAR1), 4);
    ICC_WRITE(EOIR1, 4);
    ISB();
    CHECK_EQ(ICC_READ(RPR), 0xff);
    CHECK_EQ(mmio_read(sgi + 0x300) & 0xffff, 1 << 4);
    send_sgi(4, 0);
    CHECK_EQ(ICC_READ(IAR1), 1023);
    ICC_WRITE(DIR, 4);
    ISB();
    CHECK_EQ(mmio_read(sgi + 0x300) & 0xffff, 0);
    CHECK_EQ(ICC_READ(IAR1), 4);
    ICC_WRITE(EOIR1, 4);
    ICC_WRITE(DIR, 4);
    ISB();
    split_eoi = true;
    taken = 0;
    irq_unmask();
    send_sgi(4, 0);
    send_sgi(4, 0);
    settle(taken < 1 ? 1 : taken);
    split_eoi = false;
    ICC_WRITE(CTLR, ICC_READ(CTLR) & ~2ul);
    ISB();
    // Disabled: pending, not taken.
    taken = 0;
    mmio_write(sgi + 0x180, 1 << 4); // ICENABLER0
    send_sgi(4, 0);
    settle(0);
    mmio_write(sgi + 0x280, 1 << 4); // ICPENDR0
    mmio_write(sgi + 0x100, 1 << 4);
    settle(0);
}

static void shared(void) {
    // An SPI without a device behind it: edge-triggered by software.
    taken = 0;
    mmio_write(GICD + 0xc00 + 79 / 16 * 4, 2u << 79 % 16 * 2); // ICFGR: edge
    gic_enable(79, 0x40);
    mmio_write(GICD + 0x200 + 79 / 32 * 4, 1u << 79 % 32);
    settle(1);
    CHECK_EQ(order[0], 79);
    // Priorities have some bits at least, and what is there reads back.
    mmio_write(GICD + 0x400 + 76, 0xf0a05000);
    CHECK_EQ(mmio_read(GICD + 0x400 + 76) & 0xf0f0f0f0, 0xf0a05000);
    // Identification: GICv3, one security state or none, enough interrupts.
    CHECK_EQ(mmio_read(GICD + 0xffe8) >> 4 & 15, 3);
    CHECK((mmio_read(GICD + 4) & 31) >= 2);
}

static void between(void) {
    CHECK_EQ(cpu_start(1, other), 0);
    for (int i = 0; i < 100000000 && !other_ready; i++)
        ISB();
    CHECK_EQ(other_ready, 1);
    for (int round = 0; round < 1000; round++) {
        other_got = 0;
        DSB();
        send_sgi(5, 1);
        for (int i = 0; i < 100000000 && !other_got; i++)
            ISB();
        if (other_got != 5) {
            CHECK_EQ(other_got, 5);
            break;
        }
    }
    CHECK_EQ(cpu_start(1, other), (uint64_t)-4); // ALREADY_ON
    CHECK_EQ(cpu_start(7, other), (uint64_t)-2); // INVALID_PARAMETERS
}

int main(void) {
    on_irq = note;
    gic_setup();
    gic_enable(1, 0x80);
    gic_enable(2, 0xa0);
    gic_enable(3, 0x40);
    gic_enable(4, 0x80);
    irq_unmask();
    to_oneself();
    preemption();
    states();
    shared();
    between();
    return finish("gic");
}
