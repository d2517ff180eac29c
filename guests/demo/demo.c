// The demonstration guest: what the machine looks like from inside, a clock driven by the timer's interrupt,
// and a line that echoes what is typed, driven by the console's interrupt. Between interrupts the CPU sleeps.
#include "guest.h"

// Tells which sources a prebuilt program was made from.
__attribute__((used)) static const char source_id[] = "armlet-demo-source " SOURCE_ID;

static volatile uint64_t seconds;
static volatile char typed[256];
static volatile uint8_t typed_in, typed_out;
static uint64_t frequency;

struct part {
    uint16_t implementer, number;
    const char *name;
};
static const struct part parts[] = {
    {0x41, 0xd03, "Arm Cortex-A53"}, {0x41, 0xd05, "Arm Cortex-A55"}, {0x41, 0xd07, "Arm Cortex-A57"},
    {0x41, 0xd08, "Arm Cortex-A72"}, {0x41, 0xd0b, "Arm Cortex-A76"}, {0x41, 0xd0c, "Arm Neoverse N1"},
    {0x41, 0xd40, "Arm Neoverse V1"}, {0x41, 0xd49, "Arm Neoverse N2"}, {0x41, 0xd4f, "Arm Neoverse V2"},
};

enum { ISAR0, ISAR1, PFR0, PFR1, MMFR2 };
struct feature {
    uint8_t reg, shift, least;
    const char *name;
};
static const struct feature features[] = {
    {PFR0, 16, 0, "fp"},      {PFR0, 20, 0, "asimd"},    {PFR0, 20, 1, "fp16"},    {ISAR0, 20, 2, "lse"},
    {ISAR0, 16, 1, "crc32"},  {ISAR0, 4, 1, "aes"},      {ISAR0, 4, 2, "pmull"},   {ISAR0, 8, 1, "sha1"},
    {ISAR0, 12, 1, "sha256"}, {ISAR0, 12, 2, "sha512"},  {ISAR0, 32, 1, "sha3"},   {ISAR0, 28, 1, "rdm"},
    {ISAR0, 44, 1, "dotprod"}, {ISAR0, 48, 1, "fhm"},    {ISAR0, 52, 1, "flagm"},  {ISAR0, 60, 1, "rng"},
    {ISAR1, 0, 1, "dpb"},     {ISAR1, 12, 1, "jscvt"},   {ISAR1, 16, 1, "fcma"},   {ISAR1, 20, 1, "lrcpc"},
    {ISAR1, 4, 1, "pauth"},   {ISAR1, 44, 1, "bf16"},    {ISAR1, 52, 1, "i8mm"},   {PFR0, 32, 1, "sve"},
    {PFR1, 0, 1, "bti"},      {PFR1, 4, 1, "ssbs"},      {PFR1, 8, 2, "mte"},
};

static uint64_t id_register(int which) {
    switch (which) {
    case ISAR0: return READ_SYSREG(id_aa64isar0_el1);
    case ISAR1: return READ_SYSREG(id_aa64isar1_el1);
    case PFR0: return READ_SYSREG(id_aa64pfr0_el1);
    case PFR1: return READ_SYSREG(id_aa64pfr1_el1);
    default: return READ_SYSREG(id_aa64mmfr2_el1);
    }
}

static void show_label(const char *label) { print("  \033[2m%10s\033[0m", label); }

static void show_cpu(void) {
    uint64_t midr = READ_SYSREG(midr_el1);
    const char *name = "CPU with everything";
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].implementer == midr >> 24 && parts[i].number == (midr >> 4 & 0xfff))
            name = parts[i].name;
    show_label("CPU");
    print("\033[1m%s\033[0m r%dp%d, at EL%d\n", name, midr >> 20 & 15, midr & 15, READ_SYSREG(CurrentEL) >> 2);
    show_label("can");
    int column = 12;
    for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
        const struct feature *f = &features[i];
        uint64_t field = id_register(f->reg) >> f->shift & 15;
        if (field < f->least || field == 15)
            continue;
        int length = 1;
        for (const char *s = f->name; *s; s++)
            length++;
        if (column + length > 72) {
            print("\n");
            show_label("");
            column = 12;
        }
        print("%s ", f->name);
        column += length;
    }
    uint64_t mmfr0 = READ_SYSREG(id_aa64mmfr0_el1);
    static const uint8_t bits[] = {32, 36, 40, 42, 44, 48, 52, 56};
    print("\n");
    show_label("addresses");
    print("%d bits, pages of 4K%s%s\n", (uint64_t)bits[mmfr0 & 7], (mmfr0 >> 20 & 15) ? " 16K" : "",
          (mmfr0 >> 24 & 15) == 15 ? "" : " 64K");
}

// Device tree (Devicetree Specification 0.4, chapter 5): big-endian words, read byte by byte.
static uint32_t be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static bool starts(const char *text, const char *with) {
    while (*with)
        if (*text++ != *with++)
            return false;
    return true;
}

static void show_memory(const uint8_t *tree) {
    if (be32(tree) != 0xd00dfeed)
        return;
    const uint8_t *p = tree + be32(tree + 8), *end = p + be32(tree + 36);
    const char *strings = (const char *)tree + be32(tree + 12), *node = "";
    uint64_t cpus = 0;
    while (p < end) {
        uint32_t token = be32(p);
        p += 4;
        if (token == 1) { // FDT_BEGIN_NODE
            node = (const char *)p;
            cpus += starts(node, "cpu@");
            while (*p++) {
            }
        } else if (token == 3) { // FDT_PROP
            uint32_t length = be32(p);
            const char *name = strings + be32(p + 4);
            const uint8_t *value = p + 8;
            if (starts(node, "memory") && starts(name, "reg") && length >= 16) {
                uint64_t base = (uint64_t)be32(value) << 32 | be32(value + 4);
                uint64_t size = (uint64_t)be32(value + 8) << 32 | be32(value + 12);
                show_label("memory");
                print("%d MiB at 0x%x\n", size >> 20, base);
            }
            p = value + length;
        } else if (token == 9) { // FDT_END
            break;
        }
        p += -(uintptr_t)(p - tree) & 3;
    }
    show_label("CPUs");
    print("%d\n", cpus);
}

void guest_exception(struct frame *f, uint64_t vector) {
    if (vector != VECTOR_IRQ_EL1) {
        print("\n\033[31munexpected exception\033[0m: vector %d ESR %x ELR %x FAR %x\n", vector, f->esr, f->elr,
              f->far);
        psci(PSCI_SYSTEM_OFF, 0, 0, 0);
    }
    uint64_t intid = ICC_READ(IAR1);
    if (intid == INTID_TIMER_VIRTUAL) {
        seconds++;
        WRITE_SYSREG(cntv_cval_el0, READ_SYSREG(cntv_cval_el0) + frequency);
        ISB();
    } else if (intid == INTID_UART) {
        mmio_write(UART + 0x44, 0x7ff); // ICR, before the read: what comes later interrupts again
        while (!(mmio_read(UART + 0x18) & 1 << 4)) // FR.RXFE
            typed[typed_in++] = (char)mmio_read(UART);
    }
    if (intid < 1020)
        ICC_WRITE(EOIR1, intid);
}

static char line[60];
static size_t length;

static void show_line(void) {
    line[length] = 0;
    print("\r\033[K  \033[36m%02d:%02d\033[0m > %s", seconds / 60, seconds % 60, line);
}

static void power_off(void) {
    print("\r\033[K  Good-bye after %d s.\n", seconds);
    psci(PSCI_SYSTEM_OFF, 0, 0, 0);
}

static void take(char c) {
    if (c == 4 || (c == 'q' && length == 0)) {
        power_off();
    } else if (c == '\r' || c == '\n') {
        line[length] = 0;
        if (length)
            print("\r\033[K  You typed \033[1m%s\033[0m.\n", line);
        length = 0;
    } else if (c == 8 || c == 127) {
        length -= length > 0;
    } else if (c >= ' ' && length < sizeof line - 1) {
        line[length++] = c;
    }
}

int main(void) {
    frequency = READ_SYSREG(cntfrq_el0);
    print("\n  \033[1;32marmlet\033[0m  an arm64 machine that runs here and now\n\n");
    show_cpu();
    show_memory((const uint8_t *)RAM);
    show_label("timer");
    print("%d.%d MHz, one interrupt a second\n", frequency / 1000000, frequency / 100000 % 10);
    print("\n  Type a line and press Enter. \033[1mq\033[0m powers off.\n");
    print("  To boot Linux: armlet run --kernel Image --initrd initrd.gz\n\n");

    gic_setup();
    gic_enable(INTID_TIMER_VIRTUAL, 0x80);
    gic_enable(INTID_UART, 0x80);
    mmio_write(UART + 0x30, 0x301);   // CR: UARTEN, TXE, RXE
    mmio_write(UART + 0x38, 0x50);    // IMSC: receive, receive timeout
    WRITE_SYSREG(cntv_cval_el0, READ_SYSREG(cntvct_el0) + frequency);
    WRITE_SYSREG(cntv_ctl_el0, 1);
    ISB();

    uint64_t shown = ~0ul;
    for (;;) {
        irq_mask();
        if (typed_in == typed_out && seconds == shown)
            wfi(); // Wakes for a masked interrupt, too, so none is lost.
        irq_unmask();
        ISB();
        while (typed_in != typed_out)
            take(typed[typed_out++]);
        shown = seconds;
        show_line();
    }
}
