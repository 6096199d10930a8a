/* kvmproof: does /dev/kvm run guest code on the processor itself?
 *
 * A KVM may open, answer every ioctl, and then emulate one instruction at a
 * time, which no guest survives. So a guest counts down in real mode, turns
 * long mode and paging on as every kernel does, and counts down again; the
 * host does the same. Prints one line of JSON and exits 0:
 *
 *   verdict  native, slow, stalled (not through in DEADLINE), refused, lost
 *   step     where it ended: an ioctl, or the part of the guest
 *   error    errno of a refused ioctl, exit reason of a lost guest, else 0
 *   api      what KVM says its version is
 *   nested   whether the host is itself a guest
 *   rounds   how many the guest counted in long mode, two instructions each
 *   host     nanoseconds of CPU for one round on the host
 *   guest    the same in the guest, 0 when it counted none */
#ifdef __x86_64__
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define REAL_ROUNDS 65536
#ifndef LONG_ROUNDS
#define LONG_ROUNDS 16777216
#endif
#define TEXT(x) #x
#define VALUE(x) TEXT(x)

enum {
    DEADLINE = 600000, /* microseconds */
    TOO_SLOW = 10,     /* times the host's own time; nested and busy hosts stay below 3 */
    MEMORY = 2 << 20,
    CODE = 0x8000,
    TABLES = 0x1000,
    PORT = 0x80,
    CPUID_ENTRIES = 256,
};

/* Loaded at CODE = 0x8000, started there in real mode with all bases 0. */
extern const uint8_t guest_code[], guest_end[];
__asm__(".section .rodata\n"
        "guest_code: .code16\n"
        "   mov $" VALUE(REAL_ROUNDS) ", %ecx\n"
        "1: dec %ecx\n"
        "   jnz 1b\n"
        "   out %al, $0x80\n"
        "   lgdtl 0x8000 + gdt_register - guest_code\n"
        "   mov $0x20, %eax\n" /* PAE */
        "   mov %eax, %cr4\n"
        "   mov $0x1000, %eax\n"
        "   mov %eax, %cr3\n"
        "   mov $0xc0000080, %ecx\n" /* EFER: long mode enable */
        "   rdmsr\n"
        "   or $0x100, %eax\n"
        "   wrmsr\n"
        "   mov %cr0, %eax\n"
        "   or $0x80000001, %eax\n" /* paging, protection */
        "   mov %eax, %cr0\n"
        "   ljmpl $8, $(0x8000 + long_mode - guest_code)\n"
        "long_mode: .code64\n"
        "   out %al, $0x80\n"
        "   mov $" VALUE(LONG_ROUNDS) ", %rcx\n"
        "1: dec %rcx\n"
        "   jnz 1b\n"
        "   out %al, $0x80\n"
        "   hlt\n"
        "gdt_register: .word 15\n"
        "   .long 0x8000 + gdt - guest_code\n"
        "   .balign 8\n"
        "gdt: .quad 0, 0x00209a0000000000\n" /* 8: 64-bit code, ring 0 */
        "guest_end: .code64\n"
        ".text\n");

/* What the guest is doing between its writes to PORT. */
enum { REAL_MODE, ENTERING, LONG_MODE, HALT };
static const char *const PARTS[] = {"real mode", "entering long mode", "long mode", "halt"};

static int api;
static uint64_t host, guest, rounds;

static int nested(void)
{
    unsigned a, b, c = 0, d;

    return __get_cpuid(1, &a, &b, &c, &d) && c >> 31;
}

static _Noreturn void verdict(const char *name, const char *step, int error)
{
    printf("{\"verdict\":\"%s\",\"step\":\"%s\",\"error\":%d,\"api\":%d,\"nested\":%s,"
           "\"rounds\":%llu,\"host\":%.3f,\"guest\":%.3f}\n",
           name, step, error, api, nested() ? "true" : "false", (unsigned long long)rounds,
           (double)host / LONG_ROUNDS, rounds ? (double)guest / rounds : 0.0);
    exit(0);
}

static int must(int result, const char *step)
{
    if (result < 0)
        verdict("refused", step, errno);
    return result;
}

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static uint64_t time_on_host(void)
{
    const uint64_t begin = now();
    uint64_t left = LONG_ROUNDS;

    __asm__ volatile("1: dec %0\n jnz 1b" : "+r"(left) : : "cc");
    return now() - begin;
}

static void *map(int fd, size_t size)
{
    const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

    if (memory == MAP_FAILED)
        verdict("refused", "mmap", errno);
    return memory;
}

/* The code, and page tables that map the first 2 MiB to themselves. */
static void fill(uint8_t *memory)
{
    uint64_t *tables = (uint64_t *)(memory + TABLES);

    tables[0] = (TABLES + 0x1000) | 3;    /* present, writable */
    tables[512] = (TABLES + 0x2000) | 3;
    tables[1024] = 0x83;                  /* and 2 MiB large */
    memcpy(memory + CODE, guest_code, guest_end - guest_code);
}

static int create_vm(int kvm)
{
    const int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    uint8_t *memory = map(-1, MEMORY);
    struct kvm_userspace_memory_region region = {
        .memory_size = MEMORY,
        .userspace_addr = (uintptr_t)memory,
    };

    fill(memory);
    /* Old Intel processors need this area for real mode; others ignore it. */
    must(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
    must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    return vm;
}

static int create_vcpu(int kvm, int vm)
{
    static union {
        struct kvm_cpuid2 list;
        uint8_t room[sizeof(struct kvm_cpuid2) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2)];
    } cpuid = {.list = {.nent = CPUID_ENTRIES}};
    struct kvm_regs registers = {.rip = CODE, .rflags = 2};
    struct kvm_sregs special;
    const int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");

    must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid), "KVM_GET_SUPPORTED_CPUID");
    must(ioctl(vcpu, KVM_SET_CPUID2, &cpuid), "KVM_SET_CPUID2");
    must(ioctl(vcpu, KVM_GET_SREGS, &special), "KVM_GET_SREGS");
    special.cs.base = special.cs.selector = 0;
    must(ioctl(vcpu, KVM_SET_SREGS, &special), "KVM_SET_SREGS");
    must(ioctl(vcpu, KVM_SET_REGS, &registers), "KVM_SET_REGS");
    return vcpu;
}

static struct kvm_run *run;
static volatile sig_atomic_t late;

static void on_deadline(int number)
{
    (void)number;
    late = 1;
    if (run)
        run->immediate_exit = 1;
}

static void set_deadline(void)
{
    const struct sigaction action = {.sa_handler = on_deadline};
    const struct itimerval limit = {.it_value = {.tv_usec = DEADLINE}};

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &limit, NULL);
}

/* How far the long countdown got. */
static void count(int vcpu, uint64_t begin)
{
    struct kvm_regs registers;

    guest = now() - begin;
    must(ioctl(vcpu, KVM_GET_REGS, &registers), "KVM_GET_REGS");
    rounds = registers.rcx <= LONG_ROUNDS ? LONG_ROUNDS - registers.rcx : 0;
}

/* Run until the next write to PORT, or to the halt behind the last one. */
static void run_part(int vcpu, int part)
{
    const uint32_t wanted = part < HALT ? KVM_EXIT_IO : KVM_EXIT_HLT;
    const uint64_t begin = now();
    const int result = ioctl(vcpu, KVM_RUN, 0);

    if (part == LONG_MODE)
        count(vcpu, begin);
    if (late)
        verdict("stalled", PARTS[part], 0);
    must(result, "KVM_RUN");
    if (run->exit_reason != wanted || (wanted == KVM_EXIT_IO && run->io.port != PORT))
        verdict("lost", PARTS[part], (int)run->exit_reason);
}

int main(void)
{
    const int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "open");

    api = must(ioctl(kvm, KVM_GET_API_VERSION, 0), "KVM_GET_API_VERSION");
    if (api != KVM_API_VERSION)
        verdict("refused", "version", 0);
    host = time_on_host();
    const int vm = create_vm(kvm), vcpu = create_vcpu(kvm, vm);
    run = map(vcpu, must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE"));
    set_deadline();
    for (int part = REAL_MODE; part <= HALT; part++)
        run_part(vcpu, part);
    verdict(guest > TOO_SLOW * host ? "slow" : "native", PARTS[HALT], 0);
}

#else
#include <stdio.h>

int main(void)
{
    /* Only x86 guests are run, and no other processor runs their code. */
    puts("{\"verdict\":\"refused\",\"step\":\"architecture\",\"error\":0,\"api\":0,"
         "\"nested\":false,\"rounds\":0,\"host\":0,\"guest\":0}");
}
#endif
