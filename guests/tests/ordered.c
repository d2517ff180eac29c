// cpu: neoverse-n1 max
// Alignment of exclusive, atomic and ordered accesses of every size at every offset: with FEAT_LSE2 they may be anywhere
// inside 16 aligned bytes, ordered ones by SCTLR_EL1.nAA anywhere, without it or by SCTLR_EL1.A at multiples of their
// size; which address is told and whether it was a write, before anything else that is wrong (Arm ARM B2.8.2, D1.3.5).
// With FEAT_LSE2, QEMU 11 tells of load-exclusives and atomics as writes.
#include "mmu.h"

enum { SCTLR_NAA = 1 << 6 };
static uint8_t page[4096] __attribute__((aligned(4096)));

enum { LOAD, STORE, UPDATE };
// Atomic accesses are never anywhere; an exclusive store may fail instead, if no monitor is open.
enum { ORDERED, ATOMIC, EXCLUSIVE_STORE };
enum { RCPC2 = 1 };
struct kind {
    const char *name;
    void (*run)(uint64_t address);
    uint8_t bytes, access, class, feature;
};
#define KINDS(X) \
    X(ldarb, "ldarb w2, [%0]", 1, LOAD, ORDERED, 0) X(ldarh, "ldarh w2, [%0]", 2, LOAD, ORDERED, 0) \
    X(ldarw, "ldar w2, [%0]", 4, LOAD, ORDERED, 0) X(ldarx, "ldar x2, [%0]", 8, LOAD, ORDERED, 0) \
    X(stlrh, "stlrh w2, [%0]", 2, STORE, ORDERED, 0) X(stlrw, "stlr w2, [%0]", 4, STORE, ORDERED, 0) \
    X(stlrx, "stlr x2, [%0]", 8, STORE, ORDERED, 0) X(ldaprh, "ldaprh w2, [%0]", 2, LOAD, ORDERED, 0) \
    X(ldaprw, "ldapr w2, [%0]", 4, LOAD, ORDERED, 0) X(ldaprx, "ldapr x2, [%0]", 8, LOAD, ORDERED, 0) \
    X(ldapurh, "ldapurh w2, [%0]", 2, LOAD, ORDERED, RCPC2) X(ldapursw, "ldapursw x2, [%0]", 4, LOAD, ORDERED, RCPC2) \
    X(ldapurx, "sub x4, %0, #5\n ldapur x2, [x4, #5]", 8, LOAD, ORDERED, RCPC2) \
    X(stlurh, "stlurh w2, [%0]", 2, STORE, ORDERED, RCPC2) X(stlurx, "add x4, %0, #3\n stlur x2, [x4, #-3]", 8, STORE, ORDERED, RCPC2) \
    X(ldxrh, "ldxrh w2, [%0]", 2, LOAD, ATOMIC, 0) X(ldxrw, "ldxr w2, [%0]", 4, LOAD, ATOMIC, 0) \
    X(ldxrx, "ldxr x2, [%0]", 8, LOAD, ATOMIC, 0) X(ldaxrx, "ldaxr x2, [%0]", 8, LOAD, ATOMIC, 0) \
    X(ldxpw, "ldxp w2, w3, [%0]", 8, LOAD, ATOMIC, 0) X(ldxpx, "ldxp x2, x3, [%0]", 16, LOAD, ATOMIC, 0) \
    X(ldaxpx, "ldaxp x2, x3, [%0]", 16, LOAD, ATOMIC, 0) \
    X(stxrh, "stxrh w3, w2, [%0]", 2, STORE, EXCLUSIVE_STORE, 0) X(stxrw, "stxr w3, w2, [%0]", 4, STORE, EXCLUSIVE_STORE, 0) \
    X(stlxrx, "stlxr w3, x2, [%0]", 8, STORE, EXCLUSIVE_STORE, 0) X(stxpw, "stxp w3, w2, w2, [%0]", 8, STORE, EXCLUSIVE_STORE, 0) \
    X(stlxpx, "stlxp w3, x2, x2, [%0]", 16, STORE, EXCLUSIVE_STORE, 0) \
    X(ldaddh, "ldaddh w2, w3, [%0]", 2, UPDATE, ATOMIC, 0) X(ldsetw, "ldset w2, w3, [%0]", 4, UPDATE, ATOMIC, 0) \
    X(swpalx, "swpal x2, x3, [%0]", 8, UPDATE, ATOMIC, 0) X(stumaxx, "stumax x2, [%0]", 8, UPDATE, ATOMIC, 0) \
    X(cash, "cash w3, w2, [%0]", 2, UPDATE, ATOMIC, 0) X(casalx, "casal x3, x2, [%0]", 8, UPDATE, ATOMIC, 0) \
    X(caspw, "casp w2, w3, w2, w3, [%0]", 8, UPDATE, ATOMIC, 0) X(caspx, "casp x2, x3, x2, x3, [%0]", 16, UPDATE, ATOMIC, 0)
#define DEFINE(name, text, ...)                                                                                \
    static void name(uint64_t at) {                                                                            \
        __asm__ volatile(".arch armv8.4-a\n mov x2, #-1\n mov x3, #0\n" text : : "r"(at) : "x2", "x3", "x4", "memory"); \
    }
KINDS(DEFINE)
#define ROW(name, text, ...) {#name, name, __VA_ARGS__},
static const struct kind kinds[] = {KINDS(ROW)};

static uint64_t control; // SCTLR_EL1.{nAA, A}
static void expect(const struct kind *k, const char *what, uint64_t at, uint64_t got, uint64_t wanted) {
    if (got != wanted) {
        print("%s at 0x%x, SCTLR_EL1 0x%x: %s: got 0x%x, wanted 0x%x\n", k->name, at, control, what, got, wanted);
        failures++;
    }
}

static void one(const struct kind *k, uint64_t at, bool lse2, bool mapped) {
    bool naturally = at % k->bytes == 0, inside = at % 16 + k->bytes <= 16;
    bool unaligned = lse2 && !(control & SCTLR_A) && (inside || (k->class == ORDERED && control & SCTLR_NAA));
    bool misaligned = !naturally && !unaligned;
    uint64_t write = k->access == STORE ? 1 << 6 : 0;
    for (uint64_t i = 0; i < 64; i++)
        page[i] = (uint8_t)(0x40 + i);
    __asm__ volatile("clrex" : : : "memory");
    uint64_t count = caught.count;
    k->run(at);
    uint64_t esr = caught.count == count + 1 ? caught.esr : caught.count == count ? 0 : ~0ul;
    if (misaligned) {
        // Whether the monitor or the address is looked at first is up to the implementation.
        if (k->class != EXCLUSIVE_STORE || esr) {
            expect(k, "ESR", at, esr, ESR(EC_DABORT, write | FSC_ALIGNMENT));
            expect(k, "FAR", at, caught.far, at);
        }
    } else if (!mapped) {
        if (k->class != EXCLUSIVE_STORE || esr)
            expect(k, "ESR", at, esr, ESR(EC_DABORT, write | (FSC_TRANSLATION + 3)));
    } else {
        expect(k, "ESR", at, esr, 0);
    }
    if (misaligned || k->class == EXCLUSIVE_STORE) {
        uint64_t changed = 0;
        for (uint64_t i = 0; i < 64; i++)
            changed += page[i] != (uint8_t)(0x40 + i);
        expect(k, "bytes changed", at, changed, 0);
    }
}

// Exclusive pairs of instructions at one address, wherever they may be.
static void exclusive(bool lse2) {
    for (uint64_t at = PLAY; at < PLAY + 32; at++) {
        if (at % 4 && !(lse2 && !(control & SCTLR_A) && at % 16 <= 12))
            continue;
        uint64_t value = 0, status = 9;
        __asm__ volatile("ldaxr %w0, [%2]\n mvn w4, %w0\n stlxr %w1, w4, [%2]" : "=&r"(value), "=&r"(status) : "r"(at) : "x4", "memory");
        CHECK_EQ(status, 0);
        uint32_t now = 0;
        for (uint64_t i = 4; i-- > 0;)
            now = now << 8 | *(volatile uint8_t *)(at + i);
        CHECK_EQ(now, (uint32_t)~value);
    }
}

int main(void) {
    bool lse2 = READ_SYSREG(s3_0_c0_c7_2) >> 32 & 15; // ID_AA64MMFR2_EL1.AT
    bool rcpc2 = (READ_SYSREG(id_aa64isar1_el1) >> 20 & 15) >= 2;
    mmu_tables();
    play3[0] = (uint64_t)page | NORMAL | PAGE;
    mmu_on();
    uint64_t sctlr = READ_SYSREG(sctlr_el1);
    for (int i = 0; i < 4; i++) {
        control = (i & 1 ? SCTLR_A : 0) | (i & 2 && lse2 ? SCTLR_NAA : 0);
        WRITE_SYSREG(sctlr_el1, (sctlr & ~(uint64_t)SCTLR_NAA) | control);
        ISB();
        for (const struct kind *k = kinds; k != kinds + sizeof kinds / sizeof *kinds; k++) {
            if (k->feature == RCPC2 && !rcpc2)
                continue;
            for (uint64_t at = 0; at < 34; at++) {
                one(k, PLAY + at, lse2, true);
                one(k, PLAY + 0x1000 + at, lse2, false);
            }
        }
        exclusive(lse2);
    }
    WRITE_SYSREG(sctlr_el1, sctlr);
    ISB();
    return finish("ordered");
}
