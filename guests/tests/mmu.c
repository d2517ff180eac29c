// Translation: faults and their levels, permissions, access flag and dirty state, privileged access never, address
// spaces, invalidation, granules, and translated code under changing translations (Arm ARM D8).
#include "mmu.h"

static uint8_t pages[8][4096] __attribute__((aligned(4096)));
static uint8_t user_stack[4096] __attribute__((aligned(16)));

#define PA(n) ((uint64_t)pages[n])
#define VA(n) (PLAY + 4096ul * (n))

static uint64_t load(uint64_t va) {
    uint64_t v = 0xdead;
    __asm__ volatile("ldr %0, [%1]" : "+r"(v) : "r"(va) : "memory");
    return v;
}
static void store(uint64_t va, uint64_t v) { __asm__ volatile("str %0, [%1]" : : "r"(v), "r"(va) : "memory"); }
static uint64_t call(uint64_t va) { return ((uint64_t(*)(void))va)(); }
static uint64_t user_load(uint64_t va) {
    uint64_t v = 0xdead;
    __asm__ volatile("ldr %0, [%1]" : "+r"(v) : "r"(va) : "memory");
    return v;
}
static uint64_t user_store(uint64_t va) {
    __asm__ volatile("str %0, [%0]" : : "r"(va) : "memory");
    return 0;
}
static uint64_t at_el0(uint64_t (*f)(uint64_t), uint64_t argument) {
    uint64_t stack = (uint64_t)user_stack + sizeof user_stack + (USER_DATA);
    return el0_enter(f, argument, stack, USER_CODE);
}
static void map(int n, uint64_t pa, uint64_t bits) {
    play3[n] = pa | bits | PAGE;
    published();
}
static void remap(int n, uint64_t pa, uint64_t bits) {
    play3[n] = 0;
    tlbi_page(VA(n), 0);
    map(n, pa, bits);
}

#define FAULTS(access, class, status, write, address)  \
    do {                                               \
        uint64_t esr_ = SYNDROME(access);              \
        CHECK_EQ(EC(esr_), class);                     \
        CHECK_EQ(FSC(esr_), status);                   \
        CHECK_EQ(WNR(esr_), write);                    \
        CHECK_EQ(caught.far, address);                 \
    } while (0)

static void translation_faults(void) {
    FAULTS(load(0x7f8000000000), EC_DABORT, FSC_TRANSLATION + 0, 0, 0x7f8000000000);
    FAULTS(store(0x7f8000000008, 1), EC_DABORT, FSC_TRANSLATION + 0, 1, 0x7f8000000008);
    FAULTS(load(PLAY + (5ul << 30)), EC_DABORT, FSC_TRANSLATION + 1, 0, PLAY + (5ul << 30));
    FAULTS(load(PLAY + (5ul << 21)), EC_DABORT, FSC_TRANSLATION + 2, 0, PLAY + (5ul << 21));
    FAULTS(load(VA(9)), EC_DABORT, FSC_TRANSLATION + 3, 0, VA(9));
    FAULTS(load(1ul << 50), EC_DABORT, FSC_TRANSLATION + 0, 0, 1ul << 50); // Between the halves
    // An invalid entry is not remembered.
    map(9, PA(0), NORMAL);
    store(VA(9), 77);
    CHECK_EQ(load(VA(9)), 77);
    CHECK_EQ(load(PA(0)), 77);
    // The second page of an access that crosses is the one that is told.
    map(10, PA(1), NORMAL);
    play3[11] = 0;
    tlbi_all();
    FAULTS(load(VA(11) - 3), EC_DABORT, FSC_TRANSLATION + 3, 0, VA(11));
    store(VA(10) + 4088, 0x1111);
    FAULTS(store(VA(11) - 3, ~0ul), EC_DABORT, FSC_TRANSLATION + 3, 1, VA(11));
    CHECK_EQ(load(VA(10) + 4088), 0x1111);
    // Across two pages that are not neighbours.
    map(11, PA(3), NORMAL);
    store(VA(11) - 4, 0x1122334455667788);
    CHECK_EQ(load(VA(11) - 4), 0x1122334455667788);
    CHECK_EQ(load(PA(3)) & 0xffffffff, 0x11223344);
    CHECK_EQ(load(PA(1) + 4088) >> 32, 0x55667788);
    // An output address beyond the physical size.
    map(12, 1ul << 45, NORMAL);
    FAULTS(load(VA(12)), EC_DABORT, FSC_ADDRESS + 3, 0, VA(12));
    // Instructions.
    uint64_t target = VA(20);
    resume = (uint64_t) && back;
    __asm__ volatile goto("br %0" : : "r"(target) : "memory" : back);
back:
    CHECK_EQ(EC(caught.esr), EC_IABORT);
    CHECK_EQ(FSC(caught.esr), FSC_TRANSLATION + 3);
    CHECK_EQ(caught.far, target);
    CHECK_EQ(caught.elr, target);
    resume = 0;
}

static void permissions(void) {
    map(0, PA(0), NORMAL | AP_RO);
    store(PA(0), 5);
    CHECK_EQ(load(VA(0)), 5);
    FAULTS(store(VA(0), 1), EC_DABORT, FSC_PERMISSION + 3, 1, VA(0));
    map(1, PA(1), NORMAL);
    FAULTS(at_el0(user_load, VA(1)), EC_DABORT_LOWER, FSC_PERMISSION + 3, 0, VA(1));
    FAULTS(at_el0(user_store, VA(1)), EC_DABORT_LOWER, FSC_PERMISSION + 3, 1, VA(1));
    map(2, PA(2), NORMAL | AP_EL0 | AP_RO);
    store(PA(2), 6);
    CHECK_EQ(at_el0(user_load, VA(2)), 6);
    FAULTS(at_el0(user_store, VA(2)), EC_DABORT_LOWER, FSC_PERMISSION + 3, 1, VA(2));
    FAULTS(store(VA(2), 1), EC_DABORT, FSC_PERMISSION + 3, 1, VA(2));
    map(3, PA(3), NORMAL | AP_EL0);
    at_el0(user_store, VA(3));
    CHECK_EQ(load(PA(3)), VA(3));
    // Blocks tell their own level.
    play2[3] = 0x40000000 | NORMAL | AP_RO | BLOCK;
    play1[3] = 0x40000000 | NORMAL | AP_RO | BLOCK;
    published();
    FAULTS(store(PLAY + (3ul << 21), 1), EC_DABORT, FSC_PERMISSION + 2, 1, PLAY + (3ul << 21));
    FAULTS(store(PLAY + (3ul << 30), 1), EC_DABORT, FSC_PERMISSION + 1, 1, PLAY + (3ul << 30));
    // Restrictions in tables, and ignoring them.
    play2[0] |= APTABLE_RO;
    tlbi_all();
    FAULTS(store(VA(1), 1), EC_DABORT, FSC_PERMISSION + 3, 1, VA(1));
    set_tcr(TCR_BASE | TCR_HPD0);
    CHECK_EQ(SYNDROME(store(VA(1), 1)), ~0ul);
    play2[0] &= ~APTABLE_RO;
    set_tcr(TCR_BASE);
    // Unprivileged instructions at EL1 see what EL0 sees.
    FAULTS(__asm__ volatile("ldtr x0, [%0]" : : "r"(VA(1)) : "x0"), EC_DABORT, FSC_PERMISSION + 3, 0, VA(1));
    CHECK_EQ(SYNDROME(__asm__ volatile("ldtr x0, [%0]" : : "r"(VA(2)) : "x0")), ~0ul);
    // Privileged access never.
    __asm__ volatile(".inst 0xd500419f" : : : "memory"); // MSR PAN, #1
    FAULTS(load(VA(3)), EC_DABORT, FSC_PERMISSION + 3, 0, VA(3));
    CHECK_EQ(SYNDROME(__asm__ volatile("ldtr x0, [%0]" : : "r"(VA(3)) : "x0")), ~0ul);
    CHECK_EQ(SYNDROME(load(VA(1))), ~0ul);
    __asm__ volatile(".inst 0xd500409f" : : : "memory"); // MSR PAN, #0
    CHECK_EQ(SYNDROME(load(VA(3))), ~0ul);
}

static uint64_t executes(uint64_t va) {
    uint64_t before = caught.count, v;
    __asm__ volatile("adr x16, 1f\n str x16, [%1]\n blr %2\n1: mov %0, x0"
                     : "=r"(v) : "r"(&resume), "r"(va) : "x0", "x16", "x30", "memory");
    resume = 0;
    return caught.count == before ? v : ~0ul;
}

static void write_code(uint64_t pa, uint32_t value) {
    uint32_t *p = (uint32_t *)pa;
    p[0] = 0xd2800000 | value << 5; // MOVZ X0, #value
    p[1] = 0xd65f03c0;              // RET
    p[2] = 0x10000000;              // ADR X0, .
    p[3] = 0xd65f03c0;
    __asm__ volatile("dc cvau, %0\n dsb ish\n ic ivau, %0\n dsb ish\n isb" : : "r"(p) : "memory");
}

static void execution(void) {
    write_code(PA(4), 4);
    write_code(PA(5), 5);
    remap(4, PA(4), NORMAL);
    CHECK_EQ(executes(VA(4)), 4);
    remap(4, PA(4), NORMAL | PXN);
    CHECK_EQ(executes(VA(4)), ~0ul);
    CHECK_EQ(EC(caught.esr), EC_IABORT);
    CHECK_EQ(FSC(caught.esr), FSC_PERMISSION + 3);
    CHECK_EQ(caught.far, VA(4));
    remap(4, PA(4), NORMAL | AP_EL0); // EL0 may write it: EL1 does not execute it
    CHECK_EQ(executes(VA(4)), ~0ul);
    remap(4, PA(4), NORMAL | AP_EL0 | UXN);
    resume = (uint64_t)el0_call_return + USER_CODE;
    FAULTS(at_el0((uint64_t(*)(uint64_t))(VA(4) - USER_CODE), 0), EC_IABORT_LOWER, FSC_PERMISSION + 3, 0, VA(4));
    resume = 0;
    // The same code at two addresses, and two codes at one address, time after time.
    remap(4, PA(4), NORMAL | AP_RO);
    remap(5, PA(4), NORMAL | AP_RO);
    CHECK_EQ(call(VA(4) + 8), VA(4) + 8);
    CHECK_EQ(call(VA(5) + 8), VA(5) + 8);
    CHECK_EQ(call(VA(4) + 8), VA(4) + 8);
    for (int i = 0; i < 300; i++) {
        remap(6, PA(4 + i % 2), NORMAL | AP_RO);
        CHECK_EQ(call(VA(6)), 4 + i % 2);
        CHECK_EQ(call(VA(6) + 8), VA(6) + 8);
    }
}

static void access_flag(void) {
    remap(0, PA(0), NORMAL & ~AF);
    FAULTS(load(VA(0)), EC_DABORT, FSC_ACCESS + 3, 0, VA(0));
    play3[0] |= AF; // Not remembered either
    published();
    CHECK_EQ(SYNDROME(load(VA(0))), ~0ul);
    if ((READ_SYSREG(id_aa64mmfr1_el1) & 15) >= 2) {
        set_tcr(TCR_BASE | TCR_HA);
        remap(0, PA(0), NORMAL & ~AF);
        CHECK_EQ(SYNDROME(load(VA(0))), ~0ul);
        CHECK_EQ(play3[0] & AF, AF);
        set_tcr(TCR_BASE | TCR_HA | TCR_HD);
        remap(0, PA(0), NORMAL | AP_RO | DBM);
        CHECK_EQ(SYNDROME(load(VA(0))), ~0ul);
        CHECK_EQ(play3[0] & AP_RO, AP_RO);
        CHECK_EQ(SYNDROME(store(VA(0), 1)), ~0ul);
        CHECK_EQ(play3[0] & AP_RO, 0);
        set_tcr(TCR_BASE);
    }
}

static void address_translation(void) {
    remap(0, PA(0), NORMAL | AP_RO);
    __asm__ volatile("at s1e1r, %0\n isb" : : "r"(VA(0) + 0x123));
    uint64_t par = READ_SYSREG(par_el1);
    CHECK_EQ(par & 1, 0);
    CHECK_EQ(par & 0xfffffffff000, PA(0));
    CHECK_EQ(par >> 56, 0xff);
    __asm__ volatile("at s1e1w, %0\n isb" : : "r"(VA(0)));
    CHECK_EQ(READ_SYSREG(par_el1) & 0x7f, 1 | (FSC_PERMISSION + 3) << 1);
    __asm__ volatile("at s1e0r, %0\n isb" : : "r"(VA(0)));
    CHECK_EQ(READ_SYSREG(par_el1) & 0x7f, 1 | (FSC_PERMISSION + 3) << 1);
    __asm__ volatile("at s1e1r, %0\n isb" : : "r"(PLAY + (5ul << 21)));
    CHECK_EQ(READ_SYSREG(par_el1) & 0x7f, 1 | (FSC_TRANSLATION + 2) << 1);
}

static void address_spaces(void) {
    store(PA(0), 100);
    store(PA(1), 200);
    write_code(PA(4), 4);
    write_code(PA(5), 5);
    play3[0] = PA(0) | NORMAL | NG | PAGE;
    other3[0] = PA(1) | NORMAL | NG | PAGE;
    play3[1] = PA(4) | NORMAL | NG | AP_RO | PAGE;
    other3[1] = PA(5) | NORMAL | NG | AP_RO | PAGE;
    tlbi_all();
    for (int i = 0; i < 300; i++) {
        WRITE_SYSREG(ttbr0_el1, (uint64_t)root_a | 1ul << 48);
        ISB();
        CHECK_EQ(load(VA(0)), 100);
        CHECK_EQ(call(VA(1)), 4);
        WRITE_SYSREG(ttbr0_el1, (uint64_t)root_b | 2ul << 48);
        ISB();
        CHECK_EQ(load(VA(0)), 200);
        CHECK_EQ(call(VA(1)), 5);
    }
    // Invalidation by address and by address space.
    other3[0] = PA(2) | NORMAL | NG | PAGE;
    store(PA(2), 300);
    tlbi_page(VA(0), 2);
    CHECK_EQ(load(VA(0)), 300);
    other3[0] = PA(1) | NORMAL | NG | PAGE;
    __asm__ volatile("dsb ishst\n tlbi aside1is, %0\n dsb ish\n isb" : : "r"(2ul << 48) : "memory");
    CHECK_EQ(load(VA(0)), 200);
    other3[0] = PA(2) | NORMAL | NG | PAGE;
    __asm__ volatile("dsb ishst\n tlbi vaae1is, %0\n dsb ish\n isb" : : "r"(VA(0) >> 12) : "memory");
    CHECK_EQ(load(VA(0)), 300);
    other3[0] = PA(1) | NORMAL | NG | PAGE;
    __asm__ volatile("dsb nshst\n tlbi vmalle1\n dsb nsh\n isb" : : : "memory");
    CHECK_EQ(load(VA(0)), 200);
    WRITE_SYSREG(ttbr0_el1, (uint64_t)root_a);
    ISB();
    tlbi_all();
}

static void other_halves_and_tags(void) {
    high3[0] = PA(0) | NORMAL | PAGE;
    high3[16] = PA(0) | NORMAL | CONTIGUOUS | PAGE;
    for (int i = 0; i < 16; i++)
        high3[16 + i] = (((uint64_t)pages & ~0xfffful) + 4096ul * i) | NORMAL | CONTIGUOUS | PAGE;
    published();
    store(PA(0), 9);
    CHECK_EQ(load(0xffff000000000000), 9);
    uint64_t aligned = (uint64_t)pages & ~0xfffful;
    CHECK_EQ(load(0xffff000000010000 + (PA(0) - aligned)), 9);
    FAULTS(load(0xffff000000020000), EC_DABORT, FSC_TRANSLATION + 3, 0, 0xffff000000020000);
    set_tcr(TCR_BASE | TCR_EPD1);
    FAULTS(load(0xffff000000000000), EC_DABORT, FSC_TRANSLATION + 0, 0, 0xffff000000000000);
    set_tcr(TCR_BASE | TCR_TBI0);
    remap(0, PA(0), NORMAL);
    CHECK_EQ(load(VA(0) | 0x5aul << 56), 9);
    FAULTS(load(VA(30) | 0x5aul << 56), EC_DABORT, FSC_TRANSLATION + 3, 0, VA(30) | 0x5aul << 56);
    set_tcr(TCR_BASE);
    FAULTS(load(VA(0) | 0x5aul << 56), EC_DABORT, FSC_TRANSLATION + 0, 0, VA(0) | 0x5aul << 56);
}

// Tables of the larger granules: a program that stays where it is, and one page to look through.
static uint64_t big1[8192] __attribute__((aligned(65536))), big2[8192] __attribute__((aligned(65536))),
    big3[8192] __attribute__((aligned(65536)));

static void granule(uint64_t tcr, unsigned block_shift, unsigned page_shift) {
    for (int i = 0; i < 8192; i++)
        big1[i] = big2[i] = big3[i] = 0;
    big1[0] = (uint64_t)big2 | TABLE;
    uint64_t count = 0x80000000ul >> block_shift;
    for (uint64_t i = 0; i < count; i++)
        big2[i] = i << block_shift | (i << block_shift < 0x40000000 ? DEVICE : NORMAL) | BLOCK;
    uint64_t va = (count + 1) << block_shift, page = (uint64_t)pages & ~((1ul << page_shift) - 1);
    big2[count + 1] = (uint64_t)big3 | TABLE;
    big3[1] = page | NORMAL | AP_RO | PAGE;
    // No translation in between: switch with the MMU off.
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) & ~1ul);
    ISB();
    WRITE_SYSREG(tcr_el1, tcr);
    WRITE_SYSREG(ttbr0_el1, (uint64_t)big1);
    ISB();
    tlbi_all();
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) | 1);
    ISB();
    uint64_t offset = PA(0) - page, at = va + (1ul << page_shift) + offset;
    store(PA(0), 4711 + page_shift);
    CHECK_EQ(load(at), 4711 + page_shift);
    FAULTS(store(at, 1), EC_DABORT, FSC_PERMISSION + 3, 1, at);
    FAULTS(load(va), EC_DABORT, FSC_TRANSLATION + 3, 0, va);
    uint64_t beyond = (count + 2) << block_shift;
    FAULTS(load(beyond), EC_DABORT, FSC_TRANSLATION + 2, 0, beyond);
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) & ~1ul);
    ISB();
}

int main(void) {
    mmu_tables();
    mmu_on();
    translation_faults();
    permissions();
    execution();
    access_flag();
    address_translation();
    address_spaces();
    other_halves_and_tags();
    uint64_t others = (TCR_BASE & ~0xfffful) | 1ul << 8 | 1ul << 10 | 3ul << 12 | TCR_EPD1;
    if ((READ_SYSREG(id_aa64mmfr0_el1) >> 20 & 15) >= 1)
        granule(others | 17 | 2ul << 14, 25, 14);
    if ((READ_SYSREG(id_aa64mmfr0_el1) >> 24 & 15) == 0)
        granule(others | 16 | 1ul << 14, 29, 16);
    return finish("mmu");
}
