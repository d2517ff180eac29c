// cpu: neoverse-n1 max
// smp: 2
// What each TLBI must take away, on this CPU and, of the forms that are broadcast, on another one; and that what
// depends on PSTATE is not remembered in its stead (Arm ARM D8.17, C5.5).
#include "mmu.h"

static uint8_t pages[4][4096] __attribute__((aligned(4096)));
static table block0;
#define PA(n) ((uint64_t)pages[n])
#define ID_FIELD(reg, lsb) (READ_SYSREG(reg) >> (lsb) & 15)
#define HIGH 0xffff000000000000ul

static uint64_t load(uint64_t va) {
    uint64_t v = 0xdead;
    __asm__ volatile("ldr %0, [%1]" : "+r"(v) : "r"(va) : "memory");
    return v;
}

// The other CPU loads what it is told to, and answers. It never synchronises its context in between.
static volatile uint64_t question __attribute__((aligned(64))), answer, asked, answered;
static void other_cpu(void) {
    mmu_on();
    uint64_t last = 0;
    for (;;) {
        uint64_t n;
        __asm__ volatile("ldar %0, [%1]" : "=r"(n) : "r"(&asked) : "memory");
        if (n == last)
            continue;
        last = n;
        answer = load(question);
        __asm__ volatile("stlr %0, [%1]" : : "r"(n), "r"(&answered) : "memory");
    }
}
static uint64_t load_there(uint64_t va) {
    uint64_t n = asked + 1, seen;
    question = va;
    __asm__ volatile("stlr %0, [%1]" : : "r"(n), "r"(&asked) : "memory");
    do
        __asm__ volatile("ldar %0, [%1]" : "=r"(seen) : "r"(&answered) : "memory");
    while (seen != n);
    return answer;
}

// Every form, by its SYS instruction, and how its operand is made.
enum operand { NONE, ADDRESS, SPACE, RANGE };
struct form {
    const char *name;
    void (*run)(uint64_t);
    enum operand operand;
    bool broadcast, all_asids;
    uint64_t needs; // ID_AA64ISAR0_EL1.TLB
};
#define FORM(name, crm, op2) \
    static void name(uint64_t x) { __asm__ volatile("dsb ishst\n sys #0, c8, c" #crm ", #" #op2 ", %0\n dsb ish\n isb" : : "r"(x) : "memory"); }
#define FORMS(X) \
    X(vmalle1, 7, 0, NONE, 0, 1, 0) X(vae1, 7, 1, ADDRESS, 0, 0, 0) X(aside1, 7, 2, SPACE, 0, 0, 0) \
    X(vaae1, 7, 3, ADDRESS, 0, 1, 0) X(vale1, 7, 5, ADDRESS, 0, 0, 0) X(vaale1, 7, 7, ADDRESS, 0, 1, 0) \
    X(vmalle1is, 3, 0, NONE, 1, 1, 0) X(vae1is, 3, 1, ADDRESS, 1, 0, 0) X(aside1is, 3, 2, SPACE, 1, 0, 0) \
    X(vaae1is, 3, 3, ADDRESS, 1, 1, 0) X(vale1is, 3, 5, ADDRESS, 1, 0, 0) X(vaale1is, 3, 7, ADDRESS, 1, 1, 0) \
    X(vmalle1os, 1, 0, NONE, 1, 1, 1) X(vae1os, 1, 1, ADDRESS, 1, 0, 1) X(aside1os, 1, 2, SPACE, 1, 0, 1) \
    X(vaae1os, 1, 3, ADDRESS, 1, 1, 1) X(vale1os, 1, 5, ADDRESS, 1, 0, 1) X(vaale1os, 1, 7, ADDRESS, 1, 1, 1) \
    X(rvae1, 6, 1, RANGE, 0, 0, 2) X(rvaae1, 6, 3, RANGE, 0, 1, 2) X(rvale1, 6, 5, RANGE, 0, 0, 2) \
    X(rvaale1, 6, 7, RANGE, 0, 1, 2) X(rvae1is, 2, 1, RANGE, 1, 0, 2) X(rvaae1is, 2, 3, RANGE, 1, 1, 2) \
    X(rvale1is, 2, 5, RANGE, 1, 0, 2) X(rvaale1is, 2, 7, RANGE, 1, 1, 2) X(rvae1os, 5, 1, RANGE, 1, 0, 2) \
    X(rvaae1os, 5, 3, RANGE, 1, 1, 2) X(rvale1os, 5, 5, RANGE, 1, 0, 2) X(rvaale1os, 5, 7, RANGE, 1, 1, 2)
#define DEFINE(name, crm, op2, ...) FORM(name, crm, op2)
FORMS(DEFINE)
#define ROW(name, crm, op2, ...) {#name, name, __VA_ARGS__},
static const struct form forms[] = {FORMS(ROW)};

static uint64_t range_operand(uint64_t va, uint64_t asid, uint64_t num, uint64_t scale) {
    return asid << 48 | 1ul << 46 | scale << 44 | num << 39 | (va >> 12 & 0x1fffffffff);
}
static uint64_t operand_of(const struct form *f, uint64_t va, uint64_t asid) {
    switch (f->operand) {
    case ADDRESS: return asid << 48 | (va >> 12 & 0xfffffffffff);
    case SPACE: return asid << 48;
    case RANGE: return range_operand(va, asid, 0, 0);
    default: return 0;
    }
}
// Not compared by CHECK_EQ, to name the form.
static void expect(const char *form, const char *what, uint64_t got, uint64_t wanted) {
    if (got != wanted) {
        print("%s: %s: got 0x%x, wanted 0x%x\n", form, what, got, wanted);
        failures++;
    }
}

static void switch_to(table root, uint64_t asid) {
    WRITE_SYSREG(ttbr0_el1, (uint64_t)root | asid << 48);
    ISB();
}

// Changes a leaf without break-before-make being an issue: both are pages of RAM.
static void each_form(void) {
    uint64_t level = ID_FIELD(id_aa64isar0_el1, 56), va = PLAY + 16 * 4096;
    for (const struct form *f = forms; f != forms + sizeof forms / sizeof *forms; f++) {
        if (f->needs > level) {
            expect(f->name, "is undefined", SYNDROME(f->run(0)), 1 << 25);
            continue;
        }
        // A page of one address space.
        play3[16] = PA(0) | NORMAL | NG | PAGE;
        tlbi_all();
        expect(f->name, "first", load(va), 0x1000);
        expect(f->name, "first, elsewhere", load_there(va), 0x1000);
        play3[16] = 0;
        published();
        f->run(operand_of(f, va, 0));
        expect(f->name, "what is gone", SYNDROME(load(va)) & 0xfc00003f, (uint64_t)EC_DABORT << 26 | (FSC_TRANSLATION + 3));
        if (f->broadcast)
            expect(f->name, "what is gone elsewhere", load_there(va), 0xdead);
        play3[16] = PA(1) | NORMAL | NG | PAGE;
        published();
        expect(f->name, "what has come", load(va), 0x1001);
        if (f->broadcast)
            expect(f->name, "what has come elsewhere", load_there(va), 0x1001);
        // A global page goes by address, whatever the ASID; and in both halves.
        if (f->operand != SPACE) {
            for (uint64_t base = PLAY;; base = HIGH) {
                uint64_t *leaf = base == HIGH ? &high3[17] : &play3[17];
                *leaf = PA(0) | NORMAL | PAGE;
                tlbi_all();
                expect(f->name, "global", load(base + 17 * 4096), 0x1000);
                *leaf = PA(1) | NORMAL | PAGE;
                published();
                f->run(operand_of(f, base + 17 * 4096, 77));
                expect(f->name, "global, changed", load(base + 17 * 4096), 0x1001);
                if (base == HIGH)
                    break;
            }
        }
        // All of a block goes by any address in it: 2 MiB and 1 GiB.
        for (int huge = 0; huge < 2; huge++) {
            uint64_t at = huge ? PLAY + (7ul << 30) : PLAY + (9ul << 21);
            uint64_t *entry = huge ? &play1[7] : &play2[9], size = huge ? 1ul << 30 : 1ul << 21;
            uint64_t pa = PA(2) & ~(size - 1), in = at + (PA(2) - pa);
            *entry = pa | NORMAL | NG | BLOCK;
            tlbi_all();
            expect(f->name, "block", load(in), 0x1002);
            *entry = 0;
            published();
            f->run(operand_of(f, at + size - 4096, 0));
            expect(f->name, "block, gone", SYNDROME(load(in)) & 0xfc00003f,
                   (uint64_t)EC_DABORT << 26 | (FSC_TRANSLATION + (huge ? 1 : 2)));
        }
        // Of another address space: only the forms for all of them.
        root_b[1] = (uint64_t)other1 | TABLE;
        other3[18] = PA(0) | NORMAL | NG | PAGE;
        switch_to(root_b, 5);
        tlbi_all();
        expect(f->name, "second space", load(PLAY + 18 * 4096), 0x1000);
        switch_to(root_a, 0);
        other3[18] = PA(1) | NORMAL | NG | PAGE;
        published();
        f->run(operand_of(f, PLAY + 18 * 4096, f->all_asids ? 0 : 5));
        switch_to(root_b, 5);
        expect(f->name, "second space, changed", load(PLAY + 18 * 4096), 0x1001);
        switch_to(root_a, 0);
    }
}

// Each NUM and SCALE reaches its last page, from a start far away. QEMU 11 counts the bytes in 32 bits, and so does
// nothing for multiples of 4 GiB (SCALE 3, NUM 15 and 31).
static void ranges(void) {
    if (ID_FIELD(id_aa64isar0_el1, 56) < 2)
        return;
    for (uint64_t scale = 0; scale < 4; scale++) {
        for (uint64_t num = 0; num < 32; num++) {
            uint64_t bytes = (num + 1) << (5 * scale + 1) << 12, va = PLAY + 20 * 4096;
            uint64_t start = va + 4096 - bytes; // The page is the last of the range
            for (int first = 0; first < 2; first++) {
                play3[20] = PA(0) | NORMAL | PAGE;
                tlbi_all();
                CHECK_EQ(load(va), 0x1000);
                play3[20] = PA(1) | NORMAL | PAGE;
                published();
                rvaae1(range_operand(first ? va : start, 0, num, scale));
                uint64_t got = load(va);
                if (got != 0x1001) {
                    print("range: scale %d num %d\n", scale, num);
                    CHECK_EQ(got, 0x1001);
                }
            }
        }
    }
}

// The walk's tables are forgotten with what they lead to.
static void tables(void) {
    play2[30] = (uint64_t)other3 | TABLE;
    other3[0] = PA(0) | NORMAL | PAGE;
    uint64_t va = PLAY + (30ul << 21);
    tlbi_all();
    CHECK_EQ(load(va), 0x1000);
    play2[30] = (uint64_t)block0 | TABLE;
    block0[0] = PA(1) | NORMAL | PAGE;
    published();
    tlbi_page(va, 0);
    CHECK_EQ(load(va), 0x1001);
    play2[30] = 0;
    published();
    tlbi_page(va, 0);
    CHECK_EQ(FSC(SYNDROME(load(va))), FSC_TRANSLATION + 2);
}

#define SET_PAN(v) __asm__ volatile(".inst 0xd500409f | " #v " << 8" : : : "memory")
#define SET_UAO(v) __asm__ volatile(".inst 0xd500407f | " #v " << 8" : : : "memory")

// Permissions that depend on PSTATE hold at once, in both halves.
static void state_and_permissions(void) {
    play3[24] = PA(0) | NORMAL | AP_EL0 | PAGE; // Of EL0
    play3[25] = PA(1) | NORMAL | PAGE;          // Of EL1
    high3[24] = play3[24];
    high3[25] = play3[25];
    tlbi_all();
    for (int half = 0; half < 2; half++) {
        uint64_t user = (half ? HIGH : PLAY) + 24 * 4096, kernel = user + 4096;
        for (int i = 0; i < 3; i++) {
            CHECK_EQ(load(user), 0x1000);
            CHECK_EQ(load(kernel), 0x1001);
            SET_PAN(1);
            CHECK_EQ(FSC(SYNDROME(load(user))), FSC_PERMISSION + 3);
            CHECK_EQ(SYNDROME(load(kernel)), ~0ul);
            CHECK_EQ(SYNDROME(__asm__ volatile("ldtr x0, [%0]" : : "r"(user) : "x0")), ~0ul);
            SET_UAO(1); // LDTR is then LDR, so PAN holds for it
            CHECK_EQ(FSC(SYNDROME(__asm__ volatile("ldtr x0, [%0]" : : "r"(user) : "x0"))), FSC_PERMISSION + 3);
            CHECK_EQ(SYNDROME(__asm__ volatile("ldtr x0, [%0]" : : "r"(kernel) : "x0")), ~0ul);
            SET_PAN(0);
            CHECK_EQ(SYNDROME(__asm__ volatile("ldtr x0, [%0]" : : "r"(user) : "x0")), ~0ul);
            SET_UAO(0);
            CHECK_EQ(FSC(SYNDROME(__asm__ volatile("ldtr x0, [%0]" : : "r"(kernel) : "x0"))), FSC_PERMISSION + 3);
            CHECK_EQ(FSC(SYNDROME(__asm__ volatile("sttr x0, [%0]" : : "r"(kernel) : "x0"))), FSC_PERMISSION + 3);
        }
    }
}

int main(void) {
    mmu_tables();
    for (int i = 0; i < 4; i++)
        *(volatile uint64_t *)pages[i] = 0x1000 + (uint64_t)i;
    mmu_on();
    cpu_start(1, other_cpu);
    each_form();
    ranges();
    tables();
    state_and_permissions();
    return finish("tlbi");
}
