// Generic timers: counters, conditions, masks, interrupts and wake-up (Arm ARM D12).
#include "test.h"

static volatile uint32_t last, count;

static void note(uint32_t intid) {
    last = intid;
    count++;
    // Level-sensitive: masked at its source, or it comes again.
    if (intid == INTID_TIMER_VIRTUAL)
        WRITE_SYSREG(cntv_ctl_el0, 3);
    else if (intid == INTID_TIMER_PHYSICAL)
        WRITE_SYSREG(cntp_ctl_el0, 3);
    ISB();
    if (intid < 1020)
        ICC_WRITE(EOIR1, intid);
}

static void conditions(void) {
    uint64_t f = READ_SYSREG(cntfrq_el0);
    CHECK(f >= 1000000 && f <= 1000000000);
    uint64_t a = READ_SYSREG(cntvct_el0), b = READ_SYSREG(cntvct_el0);
    CHECK(b >= a);
    // Far in the future: not met. TVAL is the distance, in 32 bits, signed.
    WRITE_SYSREG(cntv_tval_el0, 1000 * f / 1000);
    WRITE_SYSREG(cntv_ctl_el0, 3);
    ISB();
    CHECK_EQ(READ_SYSREG(cntv_ctl_el0), 3);
    uint64_t distance = READ_SYSREG(cntv_cval_el0) - READ_SYSREG(cntvct_el0);
    CHECK(distance <= f && distance > f / 2);
    // In the past: met, whether masked or not.
    WRITE_SYSREG(cntv_cval_el0, READ_SYSREG(cntvct_el0) - 5);
    ISB();
    CHECK_EQ(READ_SYSREG(cntv_ctl_el0), 7);
    CHECK((int32_t)READ_SYSREG(cntv_tval_el0) < 0);
    WRITE_SYSREG(cntv_tval_el0, 0xffffffff); // -1
    ISB();
    CHECK_EQ(READ_SYSREG(cntv_ctl_el0) & 4, 4);
    CHECK_EQ((READ_SYSREG(cntvct_el0) - READ_SYSREG(cntv_cval_el0)) >> 63, 0);
    // Disabled: ISTATUS is unknown, the line is low.
    WRITE_SYSREG(cntv_ctl_el0, 0);
    ISB();
    CHECK_EQ(READ_SYSREG(cntv_ctl_el0) & 3, 0);
}

static void fires(uint32_t intid) {
    uint64_t f = READ_SYSREG(cntfrq_el0), start = READ_SYSREG(cntpct_el0), before = count;
    if (intid == INTID_TIMER_VIRTUAL) {
        WRITE_SYSREG(cntv_tval_el0, f / 100);
        WRITE_SYSREG(cntv_ctl_el0, 1);
    } else {
        WRITE_SYSREG(cntp_tval_el0, f / 100);
        WRITE_SYSREG(cntp_ctl_el0, 1);
    }
    ISB();
    irq_mask();
    while (count == before) {
        wfi();
        irq_unmask();
        ISB();
        irq_mask();
    }
    CHECK_EQ(count, before + 1);
    CHECK_EQ(last, intid);
    CHECK(READ_SYSREG(cntpct_el0) - start >= f / 100);
}

int main(void) {
    conditions();
    on_irq = note;
    gic_setup();
    gic_enable(INTID_TIMER_VIRTUAL, 0x80);
    gic_enable(INTID_TIMER_PHYSICAL, 0x80);
    for (int i = 0; i < 10; i++) {
        fires(INTID_TIMER_VIRTUAL);
        fires(INTID_TIMER_PHYSICAL);
    }
    // A masked timer does not interrupt, and unmasking it does.
    irq_unmask();
    uint64_t before = count;
    WRITE_SYSREG(cntv_cval_el0, 0);
    WRITE_SYSREG(cntv_ctl_el0, 3);
    ISB();
    for (int i = 0; i < 1000; i++)
        ISB();
    CHECK_EQ(count, before);
    WRITE_SYSREG(cntv_ctl_el0, 1);
    ISB();
    for (int i = 0; i < 1000000 && count == before; i++)
        ISB();
    CHECK_EQ(count, before + 1);
    // A timer whose interrupt is due while PSTATE masks it is taken as soon as PSTATE lets it.
    irq_mask();
    WRITE_SYSREG(cntv_ctl_el0, 1);
    ISB();
    CHECK_EQ(count, before + 1);
    irq_unmask();
    for (int i = 0; i < 1000000 && count == before + 1; i++)
        ISB();
    CHECK_EQ(count, before + 2);
    return finish("timers");
}
