// cpu: neoverse-n1 max
// Hardware's updates of descriptors: which accesses set the Access flag and make a clean page dirty, and which must
// not; what each leaves of the descriptor, in pages, blocks and tables (Arm ARM D8.5).
#include "mmu.h"

static uint8_t pages[2][4096] __attribute__((aligned(4096)));
static uint8_t user_stack[4096] __attribute__((aligned(16)));
#define PA(n) ((uint64_t)pages[n])
#define HIGH 0xffff000000000000ul

// A kind of access; code in the middle of the page returns at once.
enum { CODE = 2048 };
static void load(uint64_t va) { __asm__ volatile("ldr x0, [%0]" : : "r"(va) : "x0", "memory"); }
static void store(uint64_t va) { __asm__ volatile("str xzr, [%0]" : : "r"(va) : "memory"); }
static void fetch(uint64_t va) {
    __asm__ volatile("adr x16, 1f\n str x16, [%0]\n blr %1\n1:" : : "r"(&resume), "r"(va + CODE) : "x0", "x16", "x30", "memory");
    resume = 0;
}
static uint64_t el0_load(uint64_t va) { load(va); return 0; }
static uint64_t el0_store(uint64_t va) { store(va); return 0; }
static uint64_t el0_fetch(uint64_t va) { return ((uint64_t(*)(void))(va + CODE))(); }
static void at_el0(uint64_t (*f)(uint64_t), uint64_t va) {
    if (f == el0_fetch)
        resume = (uint64_t)el0_call_return + USER_CODE;
    el0_enter(f, va, (uint64_t)user_stack + sizeof user_stack + USER_DATA, USER_CODE);
    resume = 0;
}
static void user_load(uint64_t va) { at_el0(el0_load, va); }
static void user_store(uint64_t va) { at_el0(el0_store, va); }
static void user_fetch(uint64_t va) { at_el0(el0_fetch, va); }
#define ACCESS(name, text) \
    static void name(uint64_t va) { __asm__ volatile(".arch armv8.2-a\n" text : : "r"(va) : "x0", "x1", "x2", "x3", "x4", "x5", "memory"); }
ACCESS(ldtr, "ldtr x0, [%0]")
ACCESS(sttr, "sttr xzr, [%0]")
ACCESS(ldxr, "ldxr x0, [%0]\n clrex")
ACCESS(stxr, "ldxr x0, [%0]\n stxr w1, x0, [%0]")
ACCESS(stlr, "stlr xzr, [%0]")
ACCESS(ldadd, "ldadd xzr, x0, [%0]")
ACCESS(swp, "swp xzr, x0, [%0]")
ACCESS(cas, "ldr x0, [%0]\n cas x0, xzr, [%0]")
ACCESS(casp, "ldp x2, x3, [%0]\n mov x4, x2\n mov x5, x3\n casp x2, x3, x4, x5, [%0]")
ACCESS(zva, "dc zva, %0")
ACCESS(cvac, "dc cvac, %0")
ACCESS(civac, "dc civac, %0")
ACCESS(cvau, "dc cvau, %0")
ACCESS(prefetch, "prfm pldl1keep, [%0]\n prfm pstl1keep, [%0]")
ACCESS(at_r, "at s1e1r, %0\n isb")
ACCESS(at_w, "at s1e1w, %0\n isb")
ACCESS(at_user_w, "at s1e0w, %0\n isb")
ACCESS(ldp, "ldp x0, x1, [%0]")
ACCESS(stp, "stp xzr, xzr, [%0]")

// What is done with a page, and whether it reads, writes or fetches as a program's access does; the others ask.
enum { READS = 1, WRITES = 2, FETCHES = 4, ASKS = 8, AS_EL0 = 16 };
static const struct access {
    const char *name;
    void (*run)(uint64_t va);
    unsigned is;
} accesses[] = {
    {"LDR", load, READS}, {"STR", store, WRITES}, {"fetch", fetch, FETCHES}, {"LDTR", ldtr, READS | AS_EL0},
    {"STTR", sttr, WRITES | AS_EL0}, {"LDXR", ldxr, READS}, {"LDXR, STXR", stxr, READS | WRITES}, {"STLR", stlr, WRITES},
    {"LDADD", ldadd, READS | WRITES}, {"SWP", swp, READS | WRITES}, {"LDR, CAS", cas, READS | WRITES},
    {"LDP, CASP", casp, READS | WRITES}, {"DC ZVA", zva, WRITES}, {"LDP", ldp, READS}, {"STP", stp, WRITES},
    {"LDR at EL0", user_load, READS | AS_EL0}, {"STR at EL0", user_store, WRITES | AS_EL0},
    {"fetch at EL0", user_fetch, FETCHES | AS_EL0}, {"DC CVAC", cvac, ASKS}, {"DC CIVAC", civac, ASKS},
    {"DC CVAU", cvau, ASKS}, {"PRFM", prefetch, ASKS}, {"AT S1E1R", at_r, ASKS}, {"AT S1E1W", at_w, ASKS},
    {"AT S1E0W", at_user_w, ASKS},
};

static void expect(const struct access *a, const char *what, uint64_t descriptor, uint64_t got, uint64_t wanted) {
    if (got != wanted) {
        print("%s of 0x%x, TCR_EL1.{HD,HA} %d: %s: got 0x%x, wanted 0x%x\n", a->name, descriptor, READ_SYSREG(tcr_el1) >> 39 & 3, what, got, wanted);
        failures++;
    }
}

// Where the descriptor under test is, at which address, and its level.
struct place {
    volatile uint64_t *entry;
    uint64_t va, base, level;
};

static void try_access(const struct access *a, const struct place *p, uint64_t bits, bool ha, bool hd, bool read_only_table) {
    uint64_t before = p->base | bits | (p->level == 3 ? PAGE : BLOCK), va = p->va;
    *p->entry = before;
    tlbi_all();
    uint64_t count = caught.count;
    a->run(va);
    uint64_t esr = caught.count == count ? 0 : caught.esr, after = *p->entry;
    bool af = bits & AF, clean = hd && ha && bits & DBM && bits & AP_RO;
    bool writable = (!(bits & AP_RO) || clean) && !read_only_table, user = a->is & AS_EL0, reached = !user || bits & AP_EL0;
    bool allowed = reached && (writable || !(a->is & WRITES));
    if (a->is & FETCHES) // What EL0 may write is not executable at EL1: clean too, which QEMU 11 lets pass.
        allowed = user || !(bits & AP_EL0 && writable);
    // Neither maintenance, prefetches nor translations asked for make a page dirty.
    uint64_t changed = before ^ after, af_set = af ? 0 : AF;
    if (a->is & ASKS) {
        expect(a, "but for AF", before, changed & ~af_set, 0);
        return;
    }
    if (!af && !ha) {
        expect(a, "fault", before, FSC(esr), FSC_ACCESS + p->level);
        expect(a, "changed", before, changed, 0);
    } else if (!allowed) {
        expect(a, "fault", before, FSC(esr), FSC_PERMISSION + p->level);
        // The Access flag may be set, dirty state not.
        expect(a, "but for AF", before, changed & ~af_set, 0);
    } else {
        expect(a, "fault", before, esr, 0);
        expect(a, "changed", before, changed, af_set | (a->is & WRITES && clean ? AP_RO : 0));
    }
}

// Every access, on every state of a descriptor, with all that can be enabled.
static void descriptors(const struct place *p, uint64_t allowed_bits, bool read_only_table) {
    for (uint64_t i = 0; i < 64; i++) {
        uint64_t bits = (NORMAL & ~AF) | (i & 1 ? AF : 0) | (i & 2 ? AP_RO : 0) | (i & 4 ? DBM : 0) | (i & 8 ? AP_EL0 : 0);
        bool ha = i & 16, hd = i & 32;
        if (bits & ~NORMAL & ~allowed_bits)
            continue;
        set_tcr(TCR_BASE | (ha ? TCR_HA : 0) | (hd ? TCR_HD : 0));
        for (const struct access *a = accesses; a != accesses + sizeof accesses / sizeof *accesses; a++)
            try_access(a, p, bits, ha, hd, read_only_table);
    }
}

// What AT tells of a page that is clean or has not been accessed.
static void asked(void) {
    set_tcr(TCR_BASE | TCR_HA | TCR_HD);
    play3[0] = PA(0) | (NORMAL & ~AF) | AP_RO | DBM | PAGE;
    tlbi_all();
    at_w(PLAY);
    CHECK_EQ(READ_SYSREG(par_el1) & 1, 0); // A clean page may be written; in QEMU 11 not
    CHECK_EQ(play3[0] & AP_RO, AP_RO);
    set_tcr(TCR_BASE | TCR_HA);
    at_w(PLAY);
    CHECK_EQ(READ_SYSREG(par_el1) & 0x7f, (FSC_PERMISSION + 3) << 1 | 1);
    set_tcr(TCR_BASE);
    play3[0] &= ~AF;
    tlbi_all();
    at_r(PLAY);
    CHECK_EQ(READ_SYSREG(par_el1) & 0x7f, (FSC_ACCESS + 3) << 1 | 1);
}

// A store-exclusive that fails stores nothing; whether its page becomes dirty or accessed is up to the implementation,
// but on a clean page it does not fault. A CAS that fails has read, and needs a page that may be written.
static void failing(void) {
    set_tcr(TCR_BASE | TCR_HA | TCR_HD);
    for (int af = 0; af < 2; af++) {
        uint64_t before = PA(0) | (NORMAL & ~AF) | (af ? AF : 0) | AP_RO | DBM | PAGE, status = 9;
        *(volatile uint64_t *)PA(0) = 0x1234;
        play3[0] = before;
        tlbi_all();
        CHECK_EQ(SYNDROME(__asm__ volatile("clrex\n stxr %w0, xzr, [%1]" : "=&r"(status) : "r"(PLAY) : "memory")), ~0ul);
        CHECK_EQ(status, 1);
        CHECK_EQ((play3[0] ^ before) & ~(AF | AP_RO), 0);
        play3[0] = before;
        tlbi_all();
        CHECK_EQ(SYNDROME(__asm__ volatile(".arch armv8.1-a\n mov x0, #1\n cas x0, xzr, [%0]" : : "r"(PLAY) : "x0", "memory")), ~0ul);
        CHECK_EQ((play3[0] ^ before) & ~(AF | AP_RO), 0);
        CHECK_EQ(play3[0] & AF, AF);
        CHECK_EQ(*(volatile uint64_t *)PA(0), 0x1234);
        before &= ~DBM;
        play3[0] = before | AF;
        tlbi_all();
        CHECK_EQ(SYNDROME(__asm__ volatile("mov x0, #1\n cas x0, xzr, [%0]" : : "r"(PLAY) : "x0", "memory")), ESR(EC_DABORT, 1 << 6 | (FSC_PERMISSION + 3)));
        CHECK_EQ(play3[0], before | AF);
    }
}

// An access that has two pages looks at both.
static void crossing(void) {
    uint64_t clean = (NORMAL & ~AF) | AP_RO | DBM | PAGE, edge = PLAY + 4096;
    set_tcr(TCR_BASE | TCR_HA | TCR_HD);
    for (int i = 0; i < 2; i++) {
        uint64_t at = edge - (i ? 4 : 8);
        play3[0] = PA(0) | clean;
        play3[1] = PA(1) | clean;
        tlbi_all();
        CHECK_EQ(SYNDROME(ldp(at)), ~0ul);
        CHECK_EQ(play3[0], PA(0) | clean | AF);
        CHECK_EQ(play3[1], PA(1) | clean | AF);
        CHECK_EQ(SYNDROME(stp(at)), ~0ul);
        CHECK_EQ(play3[0], PA(0) | NORMAL | DBM | PAGE);
        CHECK_EQ(play3[1], PA(1) | NORMAL | DBM | PAGE);
    }
    // The second page cannot be written: its descriptor stays, and nothing of it is written.
    play3[0] = PA(0) | clean;
    play3[1] = PA(1) | NORMAL | AP_RO | PAGE;
    tlbi_all();
    *(volatile uint64_t *)PA(1) = 0x1234;
    CHECK_EQ(FSC(SYNDROME(stp(edge - 8))), FSC_PERMISSION + 3);
    CHECK_EQ(caught.far, edge);
    CHECK_EQ(play3[1], PA(1) | NORMAL | AP_RO | PAGE);
    CHECK_EQ(*(volatile uint64_t *)PA(1), 0x1234);
}

// What is cached of a clean page does not hide that it is clean, and an update is made once.
static void again(void) {
    set_tcr(TCR_BASE | TCR_HA | TCR_HD);
    for (int i = 0; i < 100; i++) {
        play3[0] = PA(0) | NORMAL | AP_RO | DBM | PAGE;
        tlbi_page(PLAY, 0);
        for (int j = 0; j < 3; j++)
            load(PLAY);
        fetch(PLAY);
        CHECK_EQ(play3[0] & AP_RO, AP_RO);
        store(PLAY);
        CHECK_EQ(play3[0] & AP_RO, 0);
        // As software cleans it.
        play3[0] |= AP_RO;
        tlbi_page(PLAY, 0);
        load(PLAY);
        CHECK_EQ(play3[0] & AP_RO, AP_RO);
        ldadd(PLAY);
        CHECK_EQ(play3[0] & AP_RO, 0);
    }
}

int main(void) {
    if ((READ_SYSREG(id_aa64mmfr1_el1) & 15) < 2)
        return finish("dirty: not there");
    mmu_tables();
    mmu_on();
    ((volatile uint32_t *)pages[0])[CODE / 4] = 0xd65f03c0; // RET
    __asm__ volatile("dc cvau, %0\n dsb ish\n ic iallu\n dsb ish\n isb" : : "r"(pages[0] + CODE) : "memory");
    uint64_t all = AP_RO | DBM | AP_EL0;
    struct place page = {&play3[0], PLAY, PA(0), 3};
    descriptors(&page, all, false);
    struct place high = {&high3[0], HIGH, PA(0), 3};
    descriptors(&high, all, false);
    // A block of 2 MiB, of 1 GiB.
    struct place block2 = {&play2[8], PLAY + (8ul << 21) + (PA(0) & 0x1fffff), PA(0) & ~0x1ffffful, 2};
    descriptors(&block2, all, false);
    struct place block1 = {&play1[2], PLAY + (2ul << 30) + (PA(0) & 0x3fffffff), PA(0) & ~0x3ffffffful, 1};
    descriptors(&block1, all, false);
    // Tables stay as they are, and what they forbid is not made dirty.
    CHECK_EQ(play2[0], (uint64_t)play3 | TABLE);
    CHECK_EQ(play1[0], (uint64_t)play2 | TABLE);
    CHECK_EQ(root_a[1], (uint64_t)play1 | TABLE);
    play2[0] |= APTABLE_RO;
    descriptors(&page, all, true);
    CHECK_EQ(play2[0], (uint64_t)play3 | TABLE | APTABLE_RO);
    play2[0] &= ~APTABLE_RO;
    asked();
    failing();
    crossing();
    again();
    return finish("dirty");
}
