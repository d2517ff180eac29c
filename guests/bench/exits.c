// What leaving the guest costs: each line `exit NAME PICOSECONDS` is the time of one operation, the median of many.
// Needs a virtio block device; says `exits end`, and then waits for ever, so that others can look at what
// runs it.
#include "timing.h"

enum { MOST = 3000, SOME = 300, QUEUE = 16 };
// Descriptor bits (Arm ARM D8.3): blocks of 1 GiB, devices below RAM.
#define DEVICE (1ul | 1ul << 2 | 1ul << 10 | 3ul << 53)
#define NORMAL (1ul | 3ul << 8 | 1ul << 10 | RAM)
// 39-bit addresses, write-back walks; MAIR: normal, then device.
#define TCR (25ul | 1ul << 8 | 1ul << 10 | 3ul << 12 | 1ul << 23 | 2ul << 32)
#define MAIR 0x00fful

// Registers of virtio-mmio, and bits of Status (virtio 1.2, 4.2.2 and 2.1).
enum { SLOTS = 0x0a000000, SLOT_SIZE = 0x200, SLOT_COUNT = 32, INTID_SLOTS = 48 };
enum { DEVICE_ID = 0x8, FEATURES_SELECT = 0x24, DRIVER_FEATURES = 0x20, QUEUE_SELECT = 0x30, QUEUE_SIZE = 0x38 };
enum { QUEUE_READY = 0x44, NOTIFY = 0x50, INTERRUPT_STATUS = 0x60, INTERRUPT_ACK = 0x64, STATUS = 0x70 };
enum { DESCRIPTORS = 0x80, DRIVER = 0x90, USED = 0xa0 };
enum { ACKNOWLEDGE = 1, DRIVER_FOUND = 2, DRIVER_OK = 4, FEATURES_OK = 8, NEXT = 1, WRITE = 2, NO_INTERRUPT = 1 };

struct descriptor {
    uint64_t address;
    uint32_t length;
    uint16_t flags, next;
};
static struct descriptor descriptors[QUEUE] __attribute__((aligned(16)));
static volatile struct {
    uint16_t flags, index, ring[QUEUE];
} available __attribute__((aligned(16)));
static volatile struct {
    uint16_t flags, index;
    struct {
        uint32_t id, length;
    } ring[QUEUE];
} used __attribute__((aligned(16)));
static struct {
    uint32_t type, reserved;
    uint64_t sector;
} header;
static uint8_t data[512];
static volatile uint8_t status;
static uint64_t tables[512] __attribute__((aligned(4096)));
static uintptr_t slot;
static uint32_t intid;

static void paging(void) {
    tables[0] = DEVICE;
    tables[1] = NORMAL;
    WRITE_SYSREG(mair_el1, MAIR);
    WRITE_SYSREG(tcr_el1, TCR);
    WRITE_SYSREG(ttbr0_el1, (uintptr_t)tables);
    DSB();
    ISB();
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) | 1 | 1 << 2 | 1 << 12);
    ISB();
}

static void place(uint32_t reg, volatile void *where) {
    mmio_write(slot + reg, (uintptr_t)where);
    mmio_write(slot + reg + 4, (uint64_t)(uintptr_t)where >> 32);
}

static bool find_disk(void) {
    for (uint32_t n = 0; n < SLOT_COUNT; n++) {
        slot = SLOTS + n * SLOT_SIZE;
        intid = INTID_SLOTS + n;
        if (mmio_read(slot + DEVICE_ID) == 2)
            return true;
    }
    return false;
}

static void start_disk(void) {
    mmio_write(slot + STATUS, 0);
    mmio_write(slot + STATUS, ACKNOWLEDGE | DRIVER_FOUND);
    mmio_write(slot + FEATURES_SELECT, 0);
    mmio_write(slot + DRIVER_FEATURES, 0);
    mmio_write(slot + FEATURES_SELECT, 1);
    mmio_write(slot + DRIVER_FEATURES, 1); // VIRTIO_F_VERSION_1
    mmio_write(slot + STATUS, ACKNOWLEDGE | DRIVER_FOUND | FEATURES_OK);
    mmio_write(slot + QUEUE_SELECT, 0);
    mmio_write(slot + QUEUE_SIZE, QUEUE);
    place(DESCRIPTORS, descriptors);
    place(DRIVER, &available);
    place(USED, &used);
    mmio_write(slot + QUEUE_READY, 1);
    mmio_write(slot + STATUS, ACKNOWLEDGE | DRIVER_FOUND | FEATURES_OK | DRIVER_OK);
    descriptors[0] = (struct descriptor){(uintptr_t)&header, sizeof header, NEXT, 1};
    descriptors[1] = (struct descriptor){(uintptr_t)data, sizeof data, NEXT | WRITE, 2};
    descriptors[2] = (struct descriptor){(uintptr_t)&status, 1, WRITE, 0};
}

static void load(void) { mmio_read(UART + 0x18); }
static void store(void) { mmio_write(UART + 0x44, 0); }
static void kick(void) { mmio_write(slot + NOTIFY, 0); }

// Reads a sector.
static void submit(void) {
    status = 0xff;
    available.ring[available.index % QUEUE] = 0;
    DSB();
    available.index++;
    DSB();
    kick();
}

static void check(void) {
    if (status != 0) {
        print("exits: a request failed\n");
        psci(PSCI_SYSTEM_OFF, 0, 0, 0);
    }
}

static void polled(void) {
    available.flags = NO_INTERRUPT;
    submit();
    while (used.index != available.index) {
    }
    check();
}

static void interrupted(void) {
    available.flags = 0;
    submit();
    // Masked: the interrupt ends WFI, but is not taken.
    uint64_t taken;
    while ((taken = ICC_READ(IAR1)) != intid)
        wfi();
    mmio_write(slot + INTERRUPT_ACK, mmio_read(slot + INTERRUPT_STATUS));
    ICC_WRITE(EOIR1, taken);
    while (used.index != available.index) {
    }
    check();
}

// `apart`: time between operations that does not count, in which whoever they wake goes to sleep again.
static void measure(const char *name, void (*operation)(void), int count, uint64_t apart) {
    static uint64_t times[MOST];
    uint64_t tick = 1000000000000 / READ_SYSREG(cntfrq_el0);
    for (int i = 0; i < count; i++) {
        uint64_t begin = now();
        operation();
        uint64_t end = now();
        times[i] = end - begin;
        while (apart && now() - end < apart) {
        }
    }
    sort(times, count);
    print("exit %s %d\n", name, times[count / 2] * tick);
}

int main(void) {
    paging();
    if (!find_disk()) {
        print("exits: no disk\n");
        psci(PSCI_SYSTEM_OFF, 0, 0, 0);
    }
    irq_mask();
    gic_setup();
    gic_enable(intid, 0x80);
    start_disk();
    uint64_t apart = READ_SYSREG(cntfrq_el0) / 100;
    measure("load", load, MOST, 0);
    measure("store", store, MOST, 0);
    measure("kick", kick, MOST, 0);
    measure("kick-apart", kick, SOME, apart);
    measure("polled", polled, SOME, 0);
    measure("interrupted", interrupted, SOME, 0);
    print("exits end\n");
    for (;;)
        wfi();
}

void guest_exception(struct frame *f, uint64_t vector) {
    print("exits: exception %d, ESR %x, ELR %x, FAR %x\n", vector, f->esr, f->elr, f->far);
    psci(PSCI_SYSTEM_OFF, 0, 0, 0);
}
