// cpu: neoverse-n1 max
// What each trap tells of the instruction that it is for, what an exception keeps of PSTATE and what it makes of it,
// the four groups of vectors, and every way of an illegal return (Arm ARM D1.3, D24.2.40 ESR_EL1).
#include "test.h"

static uint8_t el0_stack[4096] __attribute__((aligned(16)));

static uint64_t at_el0(uint64_t function, uint64_t argument) {
    return el0_enter((uint64_t(*)(uint64_t))function, argument, (uint64_t)el0_stack + sizeof el0_stack, 0);
}

// The address of a piece of code that returns.
#define CODE(text) ({ uint64_t f_; __asm__ volatile("b 2f\n1: " text "\n ret\n2: adr %0, 1b" : "=r"(f_)); f_; })
// The syndrome of what an instruction does at EL0 with the argument in X0, X7 being free.
#define USER_OF(text, argument) SYNDROME(at_el0(CODE(text), argument))
#define USER(text) USER_OF(text, (uint64_t)el0_stack)
#define KERNEL(text) __asm__ volatile(text : : : "memory", "x7", "x16")

enum { UNDEFINED = 1 << 25, READ = 1, X7 = 7 << 5, XZR = 31 << 5, NOTHING = -1 };
enum { SA = 1 << 3, SA0 = 1 << 4, UMA = 1 << 9, DZE = 1 << 14, UCT = 1 << 15, NTWI = 1 << 16, NTWE = 1 << 18,
       SPAN = 1 << 23, UCI = 1 << 26 };
#define DSSBS (1ul << 44)
#define ID_FIELD(reg, lsb) (READ_SYSREG(reg) >> (lsb) & 15)

static void change_sctlr(uint64_t clear, uint64_t set) {
    WRITE_SYSREG(sctlr_el1, (READ_SYSREG(sctlr_el1) & ~clear) | set);
    ISB();
}

// Where EL0 is denied: the trap names the register, the direction and the general register.
static void denied(void) {
    change_sctlr(UMA | DZE | UCT | UCI | NTWI | NTWE, 0);
    WRITE_SYSREG(cntkctl_el1, 0);
    WRITE_SYSREG(mdscr_el1, 1 << 12); // TDCC
    ISB();
    CHECK_EQ(USER("mrs x7, ctr_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 0, 0, 1) | X7 | READ));
    CHECK_EQ(USER("mrs xzr, ctr_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 0, 0, 1) | XZR | READ));
    CHECK_EQ(USER("mrs x7, daif"), ESR(EC_SYSREG, sysreg_iss(3, 3, 4, 2, 1) | X7 | READ));
    CHECK_EQ(USER("msr daif, x7"), ESR(EC_SYSREG, sysreg_iss(3, 3, 4, 2, 1) | X7));
    CHECK_EQ(USER("dc zva, x0"), ESR(EC_SYSREG, sysreg_iss(1, 3, 7, 4, 1)));
    CHECK_EQ(USER("dc cvac, x7"), ESR(EC_SYSREG, sysreg_iss(1, 3, 7, 10, 1) | X7));
    CHECK_EQ(USER("dc cvau, x7"), ESR(EC_SYSREG, sysreg_iss(1, 3, 7, 11, 1) | X7));
    if (ID_FIELD(id_aa64isar1_el1, 0) >= 1)
        CHECK_EQ(USER("sys #3, c7, c12, #1, x7"), ESR(EC_SYSREG, sysreg_iss(1, 3, 7, 12, 1) | X7)); // DC CVAP
    if (ID_FIELD(id_aa64isar1_el1, 0) >= 2)
        CHECK_EQ(USER("sys #3, c7, c13, #1, x7"), ESR(EC_SYSREG, sysreg_iss(1, 3, 7, 13, 1) | X7)); // DC CVADP
    CHECK_EQ(USER("dc civac, x7"), ESR(EC_SYSREG, sysreg_iss(1, 3, 7, 14, 1) | X7));
    CHECK_EQ(USER("ic ivau, x7"), ESR(EC_SYSREG, sysreg_iss(1, 3, 7, 5, 1) | X7));
    CHECK_EQ(USER("mrs x7, cntfrq_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 0, 0) | X7 | READ));
    CHECK_EQ(USER("mrs x7, cntpct_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 0, 1) | X7 | READ));
    CHECK_EQ(USER("mrs x7, cntvct_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 0, 2) | X7 | READ));
    CHECK_EQ(USER("mrs x7, cntp_tval_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 2, 0) | X7 | READ));
    CHECK_EQ(USER("msr cntp_ctl_el0, x7"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 2, 1) | X7));
    CHECK_EQ(USER("msr cntp_cval_el0, x7"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 2, 2) | X7));
    CHECK_EQ(USER("msr cntv_tval_el0, x7"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 3, 0) | X7));
    CHECK_EQ(USER("mrs x7, cntv_ctl_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 3, 1) | X7 | READ));
    CHECK_EQ(USER("mrs x7, cntv_cval_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 3, 2) | X7 | READ));
    CHECK_EQ(USER("mrs x7, mdccsr_el0"), ESR(EC_SYSREG, sysreg_iss(2, 3, 0, 1, 0) | X7 | READ));
    CHECK_EQ(USER("mrs x7, dbgdtr_el0"), ESR(EC_SYSREG, sysreg_iss(2, 3, 0, 4, 0) | X7 | READ));
    CHECK_EQ(USER("msr dbgdtrtx_el0, x7"), ESR(EC_SYSREG, sysreg_iss(2, 3, 0, 5, 0) | X7));
    CHECK_EQ(USER("wfi"), ESR(EC_WFX, 0x1e00000)); // CV, COND
    // The return to EL0 was an event, which the first one takes. No one has to wait, so no one has to trap.
    uint64_t esr = USER("wfe\n wfe");
    CHECK(esr == ESR(EC_WFX, 0x1e00001) || esr == (uint64_t)NOTHING);
    CHECK_EQ(at_el0(CODE("mrs x0, dczid_el0"), 0) >> 4 & 1, 1); // DZP: never a trap
    // No more than is denied.
    WRITE_SYSREG(cntkctl_el1, 1); // EL0PCTEN
    ISB();
    CHECK_EQ(USER("mrs x7, cntpct_el0\n mrs x7, cntfrq_el0"), NOTHING);
    CHECK_EQ(USER("mrs x7, cntvct_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 0, 2) | X7 | READ));
    WRITE_SYSREG(cntkctl_el1, 1 << 8); // EL0VTEN
    ISB();
    CHECK_EQ(USER("mrs x7, cntv_cval_el0"), NOTHING);
    CHECK_EQ(USER("mrs x7, cntp_cval_el0"), ESR(EC_SYSREG, sysreg_iss(3, 3, 14, 2, 2) | X7 | READ));
    WRITE_SYSREG(cntkctl_el1, 3 | 3 << 8);
    WRITE_SYSREG(mdscr_el1, 0);
    change_sctlr(0, UMA | DZE | UCT | UCI | NTWI | NTWE);
    CHECK_EQ(USER("mrs x7, ctr_el0\n mrs x7, daif\n msr daif, x7\n dc cvau, x0\n dc civac, x0\n ic ivau, x0"), NOTHING);
    CHECK_EQ(USER("mrs x7, cntp_cval_el0\n mrs x7, cntvct_el0\n mrs x7, mdccsr_el0\n sevl\n wfe"), NOTHING);
    CHECK_EQ(at_el0(CODE("mrs x0, dczid_el0"), 0) >> 4 & 1, 0);
}

// What EL0 may not even name, and what is nothing at any level.
static void undefined(void) {
    CHECK_EQ(USER(".inst 0x00001234"), UNDEFINED); // UDF
    CHECK_EQ(caught.vector, VECTOR_SYNC_EL0);
    CHECK_EQ(USER("hvc #5"), UNDEFINED);
    CHECK_EQ(USER("smc #5"), UNDEFINED);
    CHECK_EQ(USER("hlt #5"), UNDEFINED);
    CHECK_EQ(USER("eret"), UNDEFINED);
    CHECK_EQ(USER("msr spsel, #1"), UNDEFINED);
    CHECK_EQ(USER("mrs x7, vbar_el1"), UNDEFINED);
    CHECK_EQ(USER("msr ttbr0_el1, x7"), UNDEFINED);
    CHECK_EQ(USER("mrs x7, sp_el0"), UNDEFINED);
    CHECK_EQ(USER("mrs x7, currentel"), UNDEFINED);
    CHECK_EQ(USER("msr tpidrro_el0, x7"), UNDEFINED);
    CHECK_EQ(USER("msr cntfrq_el0, x7"), UNDEFINED);
    CHECK_EQ(USER("tlbi vmalle1"), UNDEFINED);
    CHECK_EQ(USER("at s1e0r, x7"), UNDEFINED);
    CHECK_EQ(USER("ic iallu"), UNDEFINED);
    CHECK_EQ(USER("dc ivac, x0"), UNDEFINED);
    CHECK_EQ(USER("dc cisw, x7"), UNDEFINED);
    CHECK_EQ(USER("brk #0xffff"), ESR(EC_BRK, 0xffff));
    CHECK_EQ(USER("svc #0xffff"), ESR(EC_SVC, 0xffff));
    // FEAT_IDST makes a trap of what else is undefined, in the space of identification registers.
    bool idst = ID_FIELD(id_aa64mmfr2_el1, 36) >= 1;
    CHECK_EQ(USER("mrs x7, midr_el1"), idst ? ESR(EC_SYSREG, sysreg_iss(3, 0, 0, 0, 0) | X7 | READ) : UNDEFINED);
    CHECK_EQ(USER("mrs x7, id_aa64pfr0_el1"), idst ? ESR(EC_SYSREG, sysreg_iss(3, 0, 0, 4, 0) | X7 | READ) : UNDEFINED);
    CHECK_EQ(USER("mrs x7, s3_0_c0_c7_7"), idst ? ESR(EC_SYSREG, sysreg_iss(3, 0, 0, 7, 7) | X7 | READ) : UNDEFINED);
    CHECK_EQ(USER("mrs x7, clidr_el1"), idst ? ESR(EC_SYSREG, sysreg_iss(3, 1, 0, 0, 1) | X7 | READ) : UNDEFINED);
    CHECK_EQ(SYNDROME(ASM("hlt #5")), UNDEFINED);
    CHECK_EQ(SYNDROME(ASM("smc #5")), UNDEFINED); // No EL3
    CHECK_EQ(SYNDROME(ASM("msr s3_0_c4_c2_2, x0")), UNDEFINED);
    CHECK_EQ(SYNDROME(ASM("mrs x0, s2_0_c1_c0_4")), UNDEFINED);
    CHECK_EQ(SYNDROME(ASM("msr s3_3_c14_c0_1, x0")), UNDEFINED);
    CHECK_EQ(SYNDROME(ASM("mrs x0, sctlr_el3")), UNDEFINED);
    // With SP_EL0 in use its name means nothing.
    CHECK_EQ(SYNDROME(ASM("mov x0, sp\n msr sp_el0, x0\n msr spsel, #0\n mrs x0, sp_el0\n msr spsel, #1")), UNDEFINED);
    CHECK_EQ(caught.vector, 0);
}

static void floating_point(void) {
    for (uint64_t fpen = 0; fpen < 4; fpen++) {
        WRITE_SYSREG(cpacr_el1, fpen << 20);
        ISB();
        uint64_t trap = ESR(EC_FP, 0x1e00000);
        uint64_t el0 = fpen == 3 ? (uint64_t)NOTHING : trap, el1 = fpen & 1 ? (uint64_t)NOTHING : trap;
        CHECK_EQ(USER(".arch_extension fp\n fmov d0, x0"), el0);
        CHECK_EQ(USER("msr fpsr, x7"), el0);
        CHECK_EQ(USER("str q0, [x0]"), el0);
        CHECK_EQ(SYNDROME(ASM("fmov d0, x0")), el1);
        CHECK_EQ(SYNDROME(ASM("mrs x0, fpcr")), el1);
        CHECK_EQ(SYNDROME(ASM("movi v0.16b, #0")), el1);
        CHECK_EQ(SYNDROME(__asm__ volatile("ld1 {v0.16b}, [%0]" : : "r"(el0_stack) : "memory")), el1);
        // What is no instruction does not trap.
        CHECK_EQ(SYNDROME(ASM(".inst 0x1ea04000")), UNDEFINED);
    }
}

static volatile struct { uint64_t pan, uao, ssbs, dit, daif, spsel, el; } entered;
#define PAN s3_0_c4_c2_3
#define UAO s3_0_c4_c2_4
#define DIT s3_3_c4_c2_5
#define SSBS s3_3_c4_c2_6
#define GET(name) READ_SYSREG_(name)
#define SET(name, value) WRITE_SYSREG_(name, value)
static bool has_dit, has_ssbs, has_bti;

static void look(struct frame *f) {
    (void)f;
    entered.pan = GET(PAN) >> 22 & 1;
    entered.uao = GET(UAO) >> 23 & 1;
    entered.ssbs = has_ssbs ? GET(SSBS) >> 12 & 1 : 0;
    entered.dit = has_dit ? GET(DIT) >> 24 & 1 : 0;
    entered.daif = READ_SYSREG(daif) >> 6;
    entered.spsel = READ_SYSREG(spsel);
    entered.el = READ_SYSREG(currentel) >> 2;
}

// Each field alone and all: saved, made anew, brought back.
static void state(void) {
    has_dit = ID_FIELD(id_aa64pfr0_el1, 48) >= 1;
    has_ssbs = ID_FIELD(id_aa64pfr1_el1, 4) >= 2;
    has_bti = ID_FIELD(id_aa64pfr1_el1, 0) >= 1;
    on_entry = look;
    for (uint64_t i = 0; i < 64; i++) {
        uint64_t nzcv = i & 15, daif = (i * 7) & 15, pan = i & 1, uao = i >> 1 & 1, ssbs = i >> 2 & 1, dit = i >> 3 & 1;
        bool span = i >> 4 & 1, dssbs = i >> 5 & 1;
        change_sctlr(SPAN | DSSBS, (span ? SPAN : 0) | (dssbs && has_ssbs ? DSSBS : 0));
        SET(PAN, pan << 22);
        SET(UAO, uao << 23);
        if (has_ssbs)
            SET(SSBS, ssbs << 12);
        if (has_dit)
            SET(DIT, dit << 24);
        uint64_t after_nzcv, after_daif;
        __asm__ volatile("msr daif, %3\n msr nzcv, %2\n svc #1\n mrs %0, nzcv\n mrs %1, daif\n msr daifset, #15"
                         : "=&r"(after_nzcv), "=&r"(after_daif) : "r"(nzcv << 28), "r"(daif << 6) : "cc", "memory");
        uint64_t spsr = nzcv << 28 | daif << 6 | pan << 22 | uao << 23 | 5;
        spsr |= (has_ssbs ? ssbs << 12 : 0) | (has_dit ? dit << 24 : 0);
        CHECK_EQ(caught.spsr, spsr);
        CHECK_EQ(entered.daif, 15);
        CHECK_EQ(entered.spsel, 1);
        CHECK_EQ(entered.el, 1);
        CHECK_EQ(entered.pan, span ? pan : 1);
        CHECK_EQ(entered.uao, 0);
        if (has_ssbs)
            CHECK_EQ(entered.ssbs, dssbs);
        if (has_dit)
            CHECK_EQ(entered.dit, dit); // QEMU 11 clears it; AArch64.TakeException lets it be
        CHECK_EQ(after_nzcv, nzcv << 28);
        CHECK_EQ(after_daif, daif << 6);
        CHECK_EQ(GET(PAN) >> 22, pan);
        CHECK_EQ(GET(UAO) >> 23, uao);
        if (has_ssbs)
            CHECK_EQ(GET(SSBS) >> 12, ssbs);
        if (has_dit)
            CHECK_EQ(GET(DIT) >> 24, dit);
    }
    SET(PAN, 0);
    SET(UAO, 0);
    change_sctlr(DSSBS, SPAN);
    // From EL0, the same.
    CHECK_EQ(USER("mov x7, #0xa0000000\n msr nzcv, x7\n svc #2"), ESR(EC_SVC, 2));
    CHECK_EQ(caught.spsr, 0xa00003c0);
    CHECK_EQ(entered.el, 1);
    // The kind of the branch that led to what is undefined. In pages that are not guarded BR counts as a jump.
    if (has_bti) {
        KERNEL("adr x7, 1f\n br x7\n1: .inst 0");
        CHECK_EQ(caught.spsr >> 10 & 3, 1);
        KERNEL("mov x16, x30\n adr x7, 1f\n blr x7\n1: .inst 0\n mov x30, x16");
        CHECK_EQ(caught.spsr >> 10 & 3, 2);
        KERNEL("adr x7, 1f\n br x7\n1: nop\n .inst 0");
        CHECK_EQ(caught.spsr >> 10 & 3, 0);
    }
    on_entry = 0;
}

// Another exception in the handler finds its own place, and the first one's is not lost.
static volatile uint64_t depth, deepest_elr[3];
static void nest(struct frame *f) {
    uint64_t level = depth++;
    if (level < 3)
        deepest_elr[level] = f->elr;
    if (level == 0)
        __asm__ volatile("svc #0x51" : : : "memory");
    if (level == 1)
        __asm__ volatile("brk #0x52" : : : "memory");
}
static void nested(void) {
    on_entry = nest;
    uint64_t x = 1;
    __asm__ volatile("mov x7, #7\n add %0, %0, #1\n svc #0x50\n add %0, %0, x7" : "+r"(x) : : "x7", "memory");
    on_entry = 0;
    CHECK_EQ(x, 9);
    CHECK_EQ(depth, 3);
    CHECK_EQ(*(uint32_t *)(deepest_elr[0] - 4), 0xd4000001 | 0x50 << 5);
    CHECK_EQ(*(uint32_t *)(deepest_elr[1] - 4), 0xd4000001 | 0x51 << 5);
    CHECK_EQ(*(uint32_t *)deepest_elr[2], 0xd4200000 | 0x52 << 5);
}

// Which group of vectors: SP_EL0, SP_ELx, a lower level; for IRQ and FIQ too.
static volatile uint64_t interrupts;
static void count_interrupt(uint32_t intid) {
    interrupts++;
    if ((interrupted & 3) == 1)
        ICC_WRITE(EOIR1, intid);
    else
        ICC_WRITE(EOIR0, intid);
}

static void groups(void) {
    gic_setup();
    on_irq = count_interrupt;
    for (uint64_t group = 0; group < 2; group++) {
        gic_enable(3, 0x80);
        mmio_write(GICD, mmio_read(GICD) | 1);
        uintptr_t sgi = gic_redistributor() + 0x10000;
        mmio_write(sgi + 0x80, group ? ~0u : 0); // IGROUPR0
        ICC_WRITE(IGRPEN0, 1);
        DSB();
        ISB();
        uint64_t kind = group ? 1 : 2; // Of group 0 as FIQ
        for (uint64_t place = 0; place < 3; place++) {
            uint64_t before = interrupts;
            if (group)
                ICC_WRITE(SGI1R, 3ul << 24 | 1);
            else
                WRITE_SYSREG(s3_0_c12_c11_7, 3ul << 24 | 1); // ICC_SGI0R_EL1
            ISB();
            for (uint64_t i = 0; i < 1000000 && !READ_SYSREG(isr_el1); i++) {
            }
            CHECK_EQ(READ_SYSREG(isr_el1), group ? 1 << 7 : 1 << 6);
            CHECK_EQ(interrupts, before);
            // Masked by the other bit only.
            uint64_t masks = group ? 0x340 : 0x380; // D, A, and F or I
            if (place == 0)
                __asm__ volatile("mov x0, sp\n msr sp_el0, x0\n msr spsel, #0\n msr daif, %0\n nop\n msr daifset, #15\n"
                                 "msr spsel, #1" : : "r"(masks) : "x0", "memory");
            else if (place == 1)
                __asm__ volatile("msr daif, %0\n nop\n msr daifset, #15" : : "r"(masks) : "memory");
            else
                at_el0(CODE("msr daifclr, #3"), 0);
            CHECK_EQ(interrupts, before + 1);
            CHECK_EQ(interrupted, 4 * place + kind);
        }
    }
}

static void return_with(uint64_t spsr, uint64_t target) {
    __asm__ volatile("adr x0, 1f\n str x0, [%0]\n msr spsr_el1, %1\n msr elr_el1, %2\n isb\n eret\n1:"
                     : : "r"(&resume), "r"(spsr), "r"(target) : "x0", "memory", "cc");
    resume = 0;
}

static void back_to_el1(struct frame *f) { f->spsr = 0x3c5; }

static void illegal_returns(void) {
    uint64_t target = CODE("nop");
    bool aarch32 = ID_FIELD(id_aa64pfr0_el1, 0) == 2;
    for (uint64_t mode = 0; mode < 32; mode++) {
        if (mode == 0 || mode == 4 || mode == 5 || (mode == 16 && aarch32))
            continue;
        // QEMU 11 leaves PAN as it was; SetPSTATEFromPSR takes it from SPSR in any case.
        uint64_t kept = (mode & 15) << 28 | (mode & 1) << 22 | 0x3c0; // NZCV, PAN, DAIF
        caught.count = 0;
        return_with(kept | mode, target);
        CHECK_EQ(caught.count, 1);
        CHECK_EQ(caught.esr, ESR(EC_ILLEGAL, 0));
        CHECK_EQ(caught.elr, target);
        CHECK_EQ(caught.vector, VECTOR_SYNC_EL1);
        CHECK_EQ(caught.spsr & ~(1ul << 12 | 1ul << 23 | 1ul << 24), kept | 1 << 20 | 5);
        // From SP_EL0 it stays there.
        __asm__ volatile("mov x0, sp\n msr sp_el0, x0\n adr x0, 1f\n str x0, [%0]\n msr spsr_el1, %1\n msr elr_el1, %2\n"
                         "msr spsel, #0\n eret\n1: msr spsel, #1"
                         : : "r"(&resume), "r"(0x3c0 | mode), "r"(target) : "x0", "memory", "cc");
        resume = 0;
        CHECK_EQ(caught.vector, 0);
        CHECK_EQ(caught.spsr & 0x1f, 4);
    }
    SET(PAN, 0);
    // A legal return that brings IL along.
    return_with(0x3c5 | 1 << 20, target);
    CHECK_EQ(caught.esr, ESR(EC_ILLEGAL, 0));
    CHECK_EQ(caught.vector, VECTOR_SYNC_EL1);
    CHECK_EQ(caught.spsr & 0x10001f, 1 << 20 | 5);
    on_entry = back_to_el1;
    caught.count = 0;
    return_with(0x3c0 | 1 << 20, target);
    CHECK_EQ(caught.count, 1);
    CHECK_EQ(caught.vector, VECTOR_SYNC_EL0);
    CHECK_EQ(caught.esr, ESR(EC_ILLEGAL, 0));
    CHECK_EQ(caught.spsr & 0x10001f, 1 << 20);
    // A misaligned target comes first, and tells of the illegal state beside.
    return_with(0x3c0 | 1 << 20, target + 2);
    CHECK_EQ(caught.esr, ESR(EC_PC_ALIGN, 0));
    CHECK_EQ(caught.far, target + 2);
    CHECK_EQ(caught.elr, target + 2);
    CHECK_EQ(caught.spsr & 0x10001f, 1 << 20);
    return_with(0x3c9, target + 1);
    CHECK_EQ(caught.esr, ESR(EC_PC_ALIGN, 0));
    CHECK_EQ(caught.spsr & 0x10001f, 1 << 20 | 5);
    on_entry = 0;
}

// SP as a base must be a multiple of 16 if SCTLR_EL1 says so, for each level; with an address that is then wrong
// for the access, SP comes first. QEMU 11 never looks.
static void stack_pointer(void) {
    change_sctlr(0, SA | SA0);
    WRITE_SYSREG(cpacr_el1, 3 << 20);
    ISB();
    CHECK_EQ(USER("mov x7, sp\n add sp, sp, #8\n ldr x1, [sp]\n mov sp, x7"), ESR(EC_SP_ALIGN, 0));
    CHECK_EQ(caught.vector, VECTOR_SYNC_EL0);
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #8\n str x1, [sp, #-8]!\n mov sp, x7"), ESR(EC_SP_ALIGN, 0));
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #8\n stp x1, x2, [sp], #-16\n mov sp, x7"), ESR(EC_SP_ALIGN, 0));
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #4\n ldr x1, [sp, x2]\n mov sp, x7"), ESR(EC_SP_ALIGN, 0));
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #8\n ldr q1, [sp]\n mov sp, x7"), ESR(EC_SP_ALIGN, 0));
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #8\n ld1 {v1.16b}, [sp]\n mov sp, x7"), ESR(EC_SP_ALIGN, 0));
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #8\n ldxr x1, [sp]\n mov sp, x7"), ESR(EC_SP_ALIGN, 0));
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #8\n ldar x1, [sp]\n mov sp, x7"), ESR(EC_SP_ALIGN, 0));
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #8\n .arch_extension lse\n ldadd x1, x2, [sp]\n mov sp, x7"),
             ESR(EC_SP_ALIGN, 0));
    // Not for a prefetch, for arithmetic, or for an aligned one.
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #8\n prfm pldl1keep, [sp]\n add x1, sp, #8\n mov sp, x7\n ldr x1, [sp, #-8]"),
             NOTHING);
    change_sctlr(SA0, SA);
    CHECK_EQ(USER("mov x7, sp\n sub sp, sp, #8\n ldr x1, [sp]\n mov sp, x7"), NOTHING);
    // EL1 on SP_EL0, so that the handler has a stack.
    CHECK_EQ(SYNDROME(ASM("mov x0, sp\n sub x0, x0, #8\n msr sp_el0, x0\n msr spsel, #0\n ldr x1, [sp]\n msr spsel, #1")),
             ESR(EC_SP_ALIGN, 0));
    CHECK_EQ(caught.vector, 0);
    change_sctlr(SA, SA0);
    CHECK_EQ(SYNDROME(ASM("mov x0, sp\n sub x0, x0, #8\n msr sp_el0, x0\n msr spsel, #0\n ldr x1, [sp]\n msr spsel, #1")),
             NOTHING);
    change_sctlr(SA | SA0, 0);
}

int main(void) {
    change_sctlr(SA | SA0, 0);
    denied();
    undefined();
    floating_point();
    state();
    nested();
    groups();
    illegal_returns();
    stack_pointer();
    return finish("syndromes");
}
