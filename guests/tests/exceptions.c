// Synchronous exceptions: syndromes, return addresses, saved state (Arm ARM D1.3 and D24.2.40, ESR_EL1).
#include "test.h"

static uint8_t el0_stack[4096] __attribute__((aligned(16)));

static uint64_t at_el0(uint64_t (*function)(uint64_t), uint64_t argument) {
    return el0_enter(function, argument, (uint64_t)el0_stack + sizeof el0_stack, 0);
}

static uint64_t el0_svc(uint64_t x) { __asm__ volatile("svc #0x1234" : : : "memory"); return x + 1; }
static uint64_t el0_read_midr(uint64_t x) { __asm__ volatile("mrs x5, midr_el1" : : : "x5"); return x; }
static uint64_t el0_write_ttbr(uint64_t x) { __asm__ volatile("msr ttbr0_el1, %0" : : "r"(x)); return x; }
static uint64_t el0_read_ctr(uint64_t x) { __asm__ volatile("mrs %0, ctr_el0" : "=r"(x)); return x; }
static uint64_t el0_daif(uint64_t x) { __asm__ volatile("msr daifset, #2" : : : "memory"); return x; }
static uint64_t el0_wfi(uint64_t x) { __asm__ volatile("wfi" : : : "memory"); return x; }
static uint64_t el0_hvc(uint64_t x) { __asm__ volatile("hvc #0" : : : "memory"); return x; }
static uint64_t el0_eret(uint64_t x) { __asm__ volatile("eret" : : : "memory"); return x; }
static uint64_t el0_counter(uint64_t x) { __asm__ volatile("mrs %0, cntvct_el0" : "=r"(x)); return x; }
static uint64_t el0_dczva(uint64_t x) { __asm__ volatile("dc zva, %0" : : "r"(x) : "memory"); return x; }
static uint64_t el0_fp(uint64_t x) { __asm__ volatile("fmov d0, %0" : : "r"(x)); return x; }

static void instructions(void) {
    uint64_t esr = SYNDROME(ASM("svc #0xabcd"));
    CHECK_EQ(esr, EC_SVC << 26 | 1u << 25 | 0xabcd);
    CHECK_EQ(caught.vector, VECTOR_SYNC_EL1);
    CHECK_EQ(*(uint32_t *)(caught.elr - 4), 0xd4000001 | 0xabcd << 5); // Behind the instruction
    CHECK_EQ(caught.spsr & 0xf, 5);

    CHECK_EQ(SYNDROME(ASM("brk #0x77")), (uint64_t)EC_BRK << 26 | 1u << 25 | 0x77);
    CHECK_EQ(*(uint32_t *)caught.elr, 0xd4200000 | 0x77 << 5); // At the instruction
    CHECK_EQ(SYNDROME(ASM(".inst 0x00000000")), 1u << 25);     // UDF
    CHECK_EQ(SYNDROME(ASM(".inst 0xffffffff")), 1u << 25);     // Unallocated
    CHECK_EQ(SYNDROME(ASM(".inst 0x04200000")), 1u << 25);     // SVE, which the CPU lacks
    CHECK_EQ(SYNDROME(ASM("mrs x0, s3_0_c1_c7_7")), 1u << 25);
    CHECK_EQ(SYNDROME(ASM("mrs x0, vbar_el2")), 1u << 25);
    CHECK_EQ(SYNDROME(ASM("msr midr_el1, x0")), 1u << 25);
    // Identification space that has no register yet reads as zero.
    uint64_t reserved;
    __asm__ volatile("mov %0, #-1\n mrs %0, s3_0_c0_c4_6" : "=r"(reserved));
    CHECK_EQ(reserved, 0);
}

static void state_saved(void) {
    // NZCV and DAIF go into SPSR, come back, and the exception masks them all.
    uint64_t flags;
    __asm__ volatile("mov x0, #0xf0000000\n msr nzcv, x0\n svc #1\n mrs %0, nzcv" : "=r"(flags) : : "x0", "cc");
    CHECK_EQ(flags, 0xf0000000);
    CHECK_EQ(caught.spsr >> 28, 15);
    __asm__ volatile("msr daifclr, #15\n svc #1\n mrs %0, daif\n msr daifset, #15" : "=r"(flags));
    CHECK_EQ(flags, 0);
    CHECK_EQ(caught.spsr & 0x3c0, 0);
    __asm__ volatile("msr daifset, #15\n svc #1" : : : "memory");
    CHECK_EQ(caught.spsr & 0x3c0, 0x3c0);
    // With SP_EL0 chosen the vector is another one, and SPSR tells.
    ASM("mov x0, sp\n msr sp_el0, x0\n msr spsel, #0\n brk #5\n msr spsel, #1");
    CHECK_EQ(caught.vector, 0);
    CHECK_EQ(caught.spsr & 15, 4);
}

static void alignment(void) {
    static uint64_t words[4];
    uint64_t at = (uint64_t)words;
    // The MMU is off: memory is Device, and unaligned accesses fault.
    uint64_t v = 5, esr = SYNDROME(__asm__ volatile("ldr %0, [%1]" : "+r"(v) : "r"(at + 1)));
    CHECK_EQ(EC(esr), EC_DABORT);
    CHECK_EQ(FSC(esr), FSC_ALIGNMENT);
    CHECK_EQ(WNR(esr), 0);
    CHECK_EQ(caught.far, at + 1);
    CHECK_EQ(v, 5);
    esr = SYNDROME(__asm__ volatile("str %0, [%1]" : : "r"(v), "r"(at + 4) : "memory"));
    CHECK_EQ(FSC(esr), FSC_ALIGNMENT);
    CHECK_EQ(WNR(esr), 1);
    CHECK_EQ(caught.far, at + 4);
    // Writeback does not happen when the access faults.
    uint64_t base = at + 2;
    esr = SYNDROME(__asm__ volatile("ldr x0, [%0], #8" : "+r"(base) : : "x0"));
    CHECK_EQ(FSC(esr), FSC_ALIGNMENT);
    CHECK_EQ(base, at + 2);
    // Exclusives and acquire/release must be aligned in any case.
    esr = SYNDROME(__asm__ volatile("ldxr x0, [%0]" : : "r"(at + 4) : "x0"));
    CHECK_EQ(EC(esr), EC_DABORT);
    CHECK_EQ(FSC(esr), FSC_ALIGNMENT);

    esr = SYNDROME(ASM("mov x1, sp\n add x2, x1, #8\n mov sp, x2\n ldr x0, [sp]\n mov sp, x1"));
    // The exception's own frame cannot be pushed on a stack that is not aligned, so SA is off by default.
    CHECK_EQ(esr, ~0ul);
}

static void branches(void) {
    // A branch to an unaligned address faults there, not at the branch.
    uint64_t after, target = (uint64_t)instructions + 2;
    __asm__ volatile("adr %0, 1f\n str %0, [%1]\n br %2\n1:" : "=&r"(after) : "r"(&resume), "r"(target) : "memory");
    CHECK_EQ(EC(caught.esr), EC_PC_ALIGN);
    CHECK_EQ(caught.elr, target);
    CHECK_EQ(caught.far, target);
    // The same at the last address there is.
    __asm__ volatile("adr %0, 1f\n str %0, [%1]\n br %2\n1:" : "=&r"(after) : "r"(&resume), "r"(~0ul) : "memory");
    CHECK_EQ(EC(caught.esr), EC_PC_ALIGN);
    CHECK_EQ(caught.elr, ~0ul);
    // Address 0 is nothing that can be executed.
    __asm__ volatile("adr %0, 1f\n str %0, [%1]\n br %2\n1:" : "=&r"(after) : "r"(&resume), "r"(0ul) : "memory");
    CHECK_EQ(EC(caught.esr), EC_IABORT);
    CHECK_EQ(caught.elr, 0);
    resume = 0;

    // ERET to AArch32 at EL1, which is a 64-bit level, is an illegal return: it stays at EL1, with IL set.
    __asm__ volatile("adr x0, 1f\n str x0, [%0]\n mov x1, #0x1d3\n msr spsr_el1, x1\n adr x0, 2f\n msr elr_el1, x0\n"
                     "isb\n eret\n2: nop\n1:" : : "r"(&resume) : "x0", "x1", "memory");
    CHECK_EQ(EC(caught.esr), EC_ILLEGAL);
    CHECK_EQ(caught.spsr >> 20 & 1, 1);
    CHECK_EQ(caught.spsr & 0xf, 5);
    resume = 0;
    // So is ERET to a higher level.
    __asm__ volatile("adr x0, 1f\n str x0, [%0]\n mov x1, #0x3c9\n msr spsr_el1, x1\n adr x0, 2f\n msr elr_el1, x0\n"
                     "isb\n eret\n2: nop\n1:" : : "r"(&resume) : "x0", "x1", "memory");
    CHECK_EQ(EC(caught.esr), EC_ILLEGAL);
    resume = 0;
}

static void floating_point(void) {
    WRITE_SYSREG(cpacr_el1, 0);
    ISB();
    uint64_t esr = SYNDROME(ASM("fmov d0, x0"));
    CHECK_EQ(EC(esr), EC_FP);
    CHECK_EQ(ISS(esr) & 0xf00000, 0xe00000); // COND is 0b1110, CV is 1
    CHECK_EQ(EC(SYNDROME(ASM("ldr q0, [sp]"))), EC_FP);
    CHECK_EQ(EC(SYNDROME(ASM("mrs x0, fpcr"))), EC_FP);
    WRITE_SYSREG(cpacr_el1, 1 << 20); // EL1 only
    ISB();
    CHECK_EQ(SYNDROME(ASM("fmov d0, x0")), ~0ul);
    CHECK_EQ(EC(SYNDROME(at_el0(el0_fp, 0))), EC_FP);
    CHECK_EQ(caught.vector, VECTOR_SYNC_EL0);
    WRITE_SYSREG(cpacr_el1, 3 << 20);
    ISB();
    CHECK_EQ(SYNDROME(at_el0(el0_fp, 0)), ~0ul);
}

static void user(void) {
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) & ~(1ul << 9 | 1ul << 14 | 1ul << 15 | 1ul << 16 | 1ul << 18));
    ISB();
    CHECK_EQ(at_el0(el0_svc, 41), 42);
    CHECK_EQ(caught.esr, EC_SVC << 26 | 1u << 25 | 0x1234);
    CHECK_EQ(caught.vector, VECTOR_SYNC_EL0);
    CHECK_EQ(caught.spsr & 0x1f, 0);
    // Registers of EL1 are undefined at EL0; the identification registers too, unless trapped for emulation.
    uint64_t esr = SYNDROME(at_el0(el0_write_ttbr, 0));
    CHECK_EQ(EC(esr), EC_UNKNOWN);
    esr = SYNDROME(at_el0(el0_read_midr, 0));
    CHECK(EC(esr) == EC_UNKNOWN || EC(esr) == EC_SYSREG);
    // What SCTLR_EL1 forbids traps, and says what it was.
    esr = SYNDROME(at_el0(el0_read_ctr, 0)); // UCT
    CHECK_EQ(EC(esr), EC_SYSREG);
    CHECK_EQ(ISS(esr) & ~0x3e0u, sysreg_iss(3, 3, 0, 0, 1) | 1);
    esr = SYNDROME(at_el0(el0_daif, 0)); // UMA
    CHECK_EQ(EC(esr), EC_SYSREG);
    CHECK_EQ(ISS(esr), sysreg_iss(0, 3, 4, 2, 6) | 31 << 5); // QEMU 11 swaps op1 and op2 here
    esr = SYNDROME(at_el0(el0_dczva, (uint64_t)el0_stack)); // DZE
    CHECK_EQ(EC(esr), EC_SYSREG);
    CHECK_EQ(ISS(esr) & ~0x3e0u, sysreg_iss(1, 3, 7, 4, 1));
    esr = SYNDROME(at_el0(el0_wfi, 0)); // nTWI
    CHECK_EQ(EC(esr), EC_WFX);
    CHECK_EQ(ISS(esr) & 0x1f00001, 0x1e00000);
    WRITE_SYSREG(cntkctl_el1, 0);
    ISB();
    esr = SYNDROME(at_el0(el0_counter, 0)); // EL0VCTEN
    CHECK_EQ(EC(esr), EC_SYSREG);
    CHECK_EQ(ISS(esr) & ~0x3e0u, sysreg_iss(3, 3, 14, 0, 2) | 1);
    WRITE_SYSREG(cntkctl_el1, 3);
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) | 1ul << 9 | 1ul << 14 | 1ul << 15 | 1ul << 16 | 1ul << 18);
    ISB();
    CHECK_EQ(SYNDROME(at_el0(el0_counter, 0)), ~0ul);
    CHECK_EQ(at_el0(el0_read_ctr, 0), READ_SYSREG(ctr_el0));
    CHECK_EQ(SYNDROME(at_el0(el0_daif, 0)), ~0ul);
    // HVC and ERET are undefined at EL0.
    CHECK_EQ(SYNDROME(at_el0(el0_hvc, 0)), 1u << 25);
    CHECK_EQ(SYNDROME(at_el0(el0_eret, 0)), 1u << 25);
}

int main(void) {
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) & ~(1ul << 3 | 1ul << 4)); // SA, SA0
    ISB();
    instructions();
    state_saved();
    alignment();
    branches();
    floating_point();
    user();
    return finish("exceptions");
}
