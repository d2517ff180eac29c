// Cache maintenance by address: what it needs to be allowed, and what its faults tell: CM and WnR are set whatever it
// does (Arm ARM D24.2.40), but DC ZVA is a store like any other. Whether IC IVAU at EL0 needs to be able to read is up
// to the implementation. QEMU 11 takes DC CVAP for a load, DC ZVA for a store in any memory, and the rest for nothing.
#include "mmu.h"

static uint8_t pages[4][4096] __attribute__((aligned(4096)));
static uint8_t user_stack[4096] __attribute__((aligned(16)));
#define PA(n) ((uint64_t)pages[n])
#define VA(n) (PLAY + 4096ul * (n))
enum { CM_WNR = 1 << 8 | 1 << 6, WRITE_ONLY = 1 << 6, NOTHING = -1 };
enum { NOWHERE, KERNEL, KERNEL_RO, USER, USER_RO, UNTOUCHED };

#define OPERATION(name, text) \
    static uint64_t name(uint64_t va) { __asm__ volatile(text ", %0" : : "r"(va) : "memory"); return 0; }
OPERATION(cvac, "dc cvac")
OPERATION(cvau, "dc cvau")
OPERATION(cvap, "sys #3, c7, c12, #1")
OPERATION(civac, "dc civac")
OPERATION(ivac, "dc ivac")
OPERATION(ivau, "ic ivau")
OPERATION(zva, "dc zva")

static uint64_t at_el1(uint64_t (*f)(uint64_t), uint64_t va) { return SYNDROME(f(va)); }
static uint64_t at_el0(uint64_t (*f)(uint64_t), uint64_t va) {
    return SYNDROME(el0_enter(f, va, (uint64_t)user_stack + sizeof user_stack + USER_DATA, USER_CODE));
}
static uint64_t cm(uint64_t status) { return ESR(EC_DABORT, CM_WNR | status); }
static uint64_t cm0(uint64_t status) { return ESR(EC_DABORT_LOWER, CM_WNR | status); }

static void cleaning(void) {
    static uint64_t (*const all[])(uint64_t) = {cvac, cvau, cvap, civac, ivau};
    for (int i = 0; i < 5; i++) {
        uint64_t (*f)(uint64_t) = all[i];
        CHECK_EQ(at_el1(f, VA(NOWHERE) + 0x123), cm(FSC_TRANSLATION + 3));
        CHECK_EQ(caught.far, VA(NOWHERE) + 0x123);
        CHECK_EQ(at_el1(f, VA(UNTOUCHED)), cm(FSC_ACCESS + 3));
        CHECK_EQ(at_el1(f, 1ul << 50), cm(FSC_TRANSLATION));
        CHECK_EQ(at_el0(f, VA(NOWHERE)), cm0(FSC_TRANSLATION + 3));
        CHECK_EQ(at_el0(f, VA(KERNEL)), cm0(FSC_PERMISSION + 3));
        for (int n = KERNEL; n <= USER_RO; n++)
            CHECK_EQ(at_el1(f, VA(n) + 1), NOTHING);
        CHECK_EQ(at_el0(f, VA(USER)), NOTHING);
        CHECK_EQ(at_el0(f, VA(USER_RO)), NOTHING);
        // Privileged access never is of no account to it.
        __asm__ volatile(".inst 0xd500419f" : : : "memory");
        CHECK_EQ(at_el1(f, VA(USER)), NOTHING);
        __asm__ volatile(".inst 0xd500409f" : : : "memory");
    }
    // To throw away what is in the cache is to write.
    CHECK_EQ(at_el1(ivac, VA(NOWHERE)), cm(FSC_TRANSLATION + 3));
    CHECK_EQ(at_el1(ivac, VA(KERNEL_RO)), cm(FSC_PERMISSION + 3));
    CHECK_EQ(at_el1(ivac, VA(KERNEL)), NOTHING);
    CHECK_EQ(at_el1(ivac, VA(USER)), NOTHING);
}

static void zeroing(void) {
    uint64_t bytes = 4ul << (READ_SYSREG(dczid_el0) & 15);
    for (uint64_t i = 0; i < 4096; i++)
        pages[KERNEL - 1][i] = (uint8_t)(i | 1);
    CHECK_EQ(at_el1(zva, VA(KERNEL) + bytes + 5), NOTHING);
    for (uint64_t i = 0; i < 4096 && bytes < 4096; i++)
        if (pages[KERNEL - 1][i] != (i >= bytes && i < 2 * bytes ? 0 : (uint8_t)(i | 1))) {
            CHECK_EQ(i, ~0ul);
            break;
        }
    CHECK_EQ(at_el1(zva, VA(NOWHERE) + 0x123), ESR(EC_DABORT, WRITE_ONLY | (FSC_TRANSLATION + 3)));
    CHECK_EQ(caught.far, VA(NOWHERE) + 0x123);
    CHECK_EQ(at_el1(zva, VA(KERNEL_RO) + 1), ESR(EC_DABORT, WRITE_ONLY | (FSC_PERMISSION + 3)));
    CHECK_EQ(at_el0(zva, VA(KERNEL)), ESR(EC_DABORT_LOWER, WRITE_ONLY | (FSC_PERMISSION + 3)));
    CHECK_EQ(at_el0(zva, VA(USER)), NOTHING);
    __asm__ volatile(".inst 0xd500419f" : : : "memory");
    CHECK_EQ(at_el1(zva, VA(USER)), ESR(EC_DABORT, WRITE_ONLY | (FSC_PERMISSION + 3)));
    __asm__ volatile(".inst 0xd500409f" : : : "memory");
    // Device memory.
    play3[6] = PA(0) | DEVICE | PAGE;
    published();
    CHECK_EQ(at_el1(zva, VA(6)), ESR(EC_DABORT, WRITE_ONLY | FSC_ALIGNMENT));
}

int main(void) {
    mmu_tables();
    play3[KERNEL] = PA(0) | NORMAL | PAGE;
    play3[KERNEL_RO] = PA(1) | NORMAL | AP_RO | PAGE;
    play3[USER] = PA(2) | NORMAL | AP_EL0 | PAGE;
    play3[USER_RO] = PA(3) | NORMAL | AP_EL0 | AP_RO | PAGE;
    play3[UNTOUCHED] = PA(0) | (NORMAL & ~AF) | PAGE;
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) | 1ul << 26 | 1ul << 14); // UCI, DZE
    mmu_on();
    cleaning();
    zeroing();
    return finish("maintenance");
}
