// cpu: neoverse-n1 max
// Where interrupts are taken: behind what unmasks them, inside loops of any kind, one behind another; what goes along with
// them, and what is as it was when they have returned (Arm ARM D1.3). Each is taken many times, so that whatever is kept
// from one to the next is used.
#include "mmu.h"

enum { ROUNDS = 40, DAIF_I = 1 << 7, SPSR_PAN = 1 << 22, VECTOR_IRQ_SP0 = 1 };
#define PAN s3_0_c4_c2_3

static uint8_t el0_stack[4096] __attribute__((aligned(16)));
static volatile uint64_t elr, spsr, taken, seen_daif, seen_pan, order;

static void note(uint32_t intid) {
    elr = READ_SYSREG(elr_el1);
    spsr = READ_SYSREG(spsr_el1);
    seen_daif = READ_SYSREG(daif);
    if (READ_SYSREG(id_aa64mmfr1_el1) >> 20 & 15)
        seen_pan = READ_SYSREG_(PAN);
    order = order << 4 | (intid & 15);
    taken++;
    if (intid == INTID_TIMER_VIRTUAL)
        WRITE_SYSREG(cntv_ctl_el0, 0);
    ICC_WRITE(EOIR1, intid);
}

static void send_to_self(uint64_t sgi) {
    ICC_WRITE(SGI1R, sgi << 24 | 1);
    ISB();
}

// An SGI is pending and masked; `unmask` lets it come with these flags. They are the same behind it, a general register is,
// and the monitor is open.
#define UNMASKED_BY(name, unmask)                                                                                    \
    static void name(uint64_t flags) {                                                                               \
        uint64_t at, now, status;                                                                                    \
        irq_mask();                                                                                                  \
        send_to_self(1);                                                                                             \
        taken = 0;                                                                                                   \
        __asm__ volatile("mov x6, #0x77\n ldxr x7, [%4]\n msr nzcv, %3\n" unmask "\n1: mrs %1, nzcv\n adr %0, 1b\n"   \
                         "stxr %w2, x7, [%4]\n add x6, x6, #1\n cmp x6, #0x78\n b.eq 2f\n mov %0, #0\n2:"             \
                         : "=&r"(at), "=&r"(now), "=&r"(status)                                                      \
                         : "r"(flags), "r"(el0_stack)                                                                \
                         : "x6", "x7", "x8", "x9", "cc", "memory");                                                  \
        irq_mask();                                                                                                  \
        CHECK_EQ(taken, 1);                                                                                          \
        CHECK_EQ(elr, at);                                                                                           \
        CHECK_EQ(now, flags);                                                                                        \
        CHECK_EQ(spsr & 0xf00003ff, flags | 0x345);                                                                  \
        CHECK_EQ(seen_daif, 0x3c0);                                                                                  \
        CHECK_EQ(interrupted, VECTOR_IRQ_EL1);                                                                       \
        CHECK_EQ(status, 1);                                                                                         \
    }
UNMASKED_BY(by_clear, "msr daifclr, #2")
UNMASKED_BY(by_write, "mrs x8, daif\n and x8, x8, #~0x80\n msr daif, x8")
UNMASKED_BY(by_return, "adr x8, 1f\n msr elr_el1, x8\n mrs x9, nzcv\n mov x8, #0x345\n orr x8, x8, x9\n msr spsr_el1, x8\n eret")

// Several are pending: the second comes where the first returns to, before any instruction there.
static void one_behind_another(void) {
    irq_mask();
    send_to_self(2);
    send_to_self(3);
    send_to_self(1);
    taken = order = 0;
    uint64_t at, n = 0;
    __asm__ volatile("msr daifclr, #2\n1: add %1, %1, #1\n adr %0, 1b" : "=r"(at), "+r"(n) : : "memory");
    irq_mask();
    CHECK_EQ(taken, 3);
    CHECK_EQ(order, 0x312); // by priority, then by number
    CHECK_EQ(elr, at);
    CHECK_EQ(n, 1);
}

// With SP_EL0 as the stack pointer an interrupt has another vector, and its handler another stack.
static void with_other_stack(void) {
    uint64_t sp;
    irq_mask();
    send_to_self(1);
    taken = 0;
    WRITE_SYSREG(sp_el0, (uint64_t)el0_stack + 1024);
    __asm__ volatile("msr spsel, #0\n msr daifclr, #2\n nop\n mov %0, sp\n msr daifset, #2\n msr spsel, #1" : "=r"(sp) : : "memory");
    CHECK_EQ(taken, 1);
    CHECK_EQ(interrupted, VECTOR_IRQ_SP0);
    CHECK_EQ(sp, (uint64_t)el0_stack + 1024);
    CHECK_EQ(spsr & 0x3ff, 0x344);
}

static void arm_timer(void) {
    WRITE_SYSREG(cntv_cval_el0, READ_SYSREG(cntvct_el0) + READ_SYSREG(cntfrq_el0) / 50000);
    WRITE_SYSREG(cntv_ctl_el0, 1);
    ISB();
}

// Loops until an interrupt comes, which the system call's handler unmasks: x1 counts rounds, x2 twice as many. The
// interrupt is taken inside. EL0 sees variables at other addresses than EL1, so it is told where they are.
static struct {
    volatile uint64_t taken, elr;
} loops;
static inline uint64_t elr_seen(uint64_t place) { return ((volatile uint64_t *)place)[1]; }
static void unmask(struct frame *f) { f->spsr &= ~(uint64_t)DAIF_I; }
#define LOOP(name, body)                                                                                             \
    static uint64_t name(uint64_t place) {                                                                           \
        uint64_t n, twice, first, behind;                                                                            \
        __asm__ volatile("mov x1, #0\n mov x2, #0\n adr x4, 1f\n adr x5, 2f\n svc #0\n"                               \
                         "1: add x1, x1, #1\n add x2, x2, #2\n ldr x3, [%4]\n" body "\n2:"                            \
                         "mov %0, x1\n mov %1, x2\n mov %2, x4\n mov %3, x5"                                         \
                         : "=&r"(n), "=&r"(twice), "=&r"(first), "=&r"(behind)                                       \
                         : "r"(place)                                                                                \
                         : "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x30", "cc", "memory");                         \
        return twice == 2 * n && elr_seen(place) >= first && elr_seen(place) <= behind ? 7 : 8;                      \
    }
LOOP(directly, "cbz x3, 1b")
LOOP(by_register, "adr x6, 1b\n cmp x3, #0\n csel x6, x6, x5, eq\n br x6")
LOOP(by_calls, "adr x6, 3f\n blr x6\n cbz x3, 1b\n b 2f\n3: ret")

static void note_in_loop(uint32_t intid) {
    note(intid);
    loops.elr = READ_SYSREG(elr_el1);
    loops.taken = 1;
}

static void inside_loops(void) {
    static uint64_t (*const all[])(uint64_t) = {directly, by_register, by_calls};
    on_irq = note_in_loop;
    on_entry = unmask;
    for (int n = 0; n < 3 * ROUNDS; n++) {
        uint64_t (*loop)(uint64_t) = all[n % 3];
        loops.taken = 0;
        arm_timer();
        CHECK_EQ(loop((uint64_t)&loops), 7);
        irq_mask();
        CHECK_EQ(interrupted, VECTOR_IRQ_EL1);
        loops.taken = 0;
        arm_timer();
        uint64_t stack = (uint64_t)el0_stack + sizeof el0_stack + USER_DATA;
        CHECK_EQ(el0_enter(loop, (uint64_t)&loops + USER_DATA, stack, USER_CODE), 7);
        irq_mask();
        CHECK_EQ(interrupted, VECTOR_IRQ_EL0);
    }
    on_entry = 0;
    on_irq = note;
}

// PSTATE.PAN on entry is what SCTLR_EL1.SPAN says, and comes back.
static void privileged_access_never(void) {
    if (!(READ_SYSREG(id_aa64mmfr1_el1) >> 20 & 15))
        return;
    uint64_t sctlr = READ_SYSREG(sctlr_el1);
    for (int n = 0; n < ROUNDS; n++) {
        uint64_t span = n & 1 ? SCTLR_SPAN : 0, pan = n & 2 ? SPSR_PAN : 0;
        WRITE_SYSREG(sctlr_el1, (sctlr & ~(uint64_t)SCTLR_SPAN) | span);
        WRITE_SYSREG_(PAN, pan);
        ISB();
        by_clear(0);
        CHECK_EQ(seen_pan, span ? pan : SPSR_PAN);
        CHECK_EQ(READ_SYSREG_(PAN), pan);
        CHECK_EQ(spsr & SPSR_PAN, pan);
    }
    WRITE_SYSREG_(PAN, 0);
    WRITE_SYSREG(sctlr_el1, sctlr);
    ISB();
}

static void all(void) {
    for (uint64_t n = 0; n < ROUNDS; n++)
        by_clear((n & 15) << 28);
    for (uint64_t n = 0; n < ROUNDS; n++)
        by_write((n & 15) << 28);
    for (uint64_t n = 0; n < ROUNDS; n++)
        by_return((n & 15) << 28);
    for (uint64_t n = 0; n < ROUNDS; n++)
        one_behind_another();
    for (uint64_t n = 0; n < ROUNDS; n++)
        with_other_stack();
    inside_loops();
    privileged_access_never();
}

int main(void) {
    gic_setup();
    gic_enable(1, 0x80);
    gic_enable(2, 0x80);
    gic_enable(3, 0x40);
    gic_enable(INTID_TIMER_VIRTUAL, 0x80);
    on_irq = note;
    mmu_tables();
    mmu_on();
    all();
    // Kernels run with PAN set, so that it is the same in handlers.
    if (READ_SYSREG(id_aa64mmfr1_el1) >> 20 & 15)
        WRITE_SYSREG_(PAN, SPSR_PAN);
    all();
    return finish("interrupts");
}
