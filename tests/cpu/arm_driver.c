/* Runs kernels for ARM under qemu-user. A request on stdin names a shared library and its function, the task's
   fields, and the memory that they point to; the answer on stdout is that memory afterwards. Each piece ends
   where a page begins that may not be touched, so that an access beyond it ends the program. */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MOST 64
#define PAGE 4096
#define SLACK 0xA5

struct request {
    char library[512], function[64];
    int64_t calls, fields, pieces;
};

struct field {
    int64_t value, piece; /* the piece whose address is added, or -1 */
};

static void need(int condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "arm_driver: %s\n", what);
        exit(1);
    }
}

static void receive(void *memory, size_t size) {
    if (size) need(fread(memory, 1, size, stdin) == size, "a request ends too early");
}

int main(void) {
    static struct request request;
    while (fread(&request, sizeof request, 1, stdin) == 1) {
        struct field fields[MOST];
        int64_t task[MOST], sizes[MOST];
        unsigned char *pages[MOST], *memory[MOST];
        need(request.fields <= MOST && request.pieces <= MOST, "too many fields");
        receive(fields, request.fields * sizeof *fields);
        for (int64_t i = 0; i < request.pieces; i++) {
            receive(&sizes[i], sizeof *sizes);
            size_t whole = (sizes[i] + PAGE - 1) / PAGE * PAGE;
            pages[i] = mmap(0, whole + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            need(pages[i] != MAP_FAILED && !mprotect(pages[i] + PAGE, whole, PROT_READ | PROT_WRITE), "mmap");
            memory[i] = pages[i] + PAGE + whole - sizes[i];
            memset(pages[i] + PAGE, SLACK, whole - sizes[i]);
            receive(memory[i], sizes[i]);
        }
        for (int64_t i = 0; i < request.fields; i++)
            task[i] = fields[i].value + (fields[i].piece < 0 ? 0 : (int64_t)(intptr_t)memory[fields[i].piece]);
        void *library = dlopen(request.library, RTLD_NOW);
        need(library != 0, "dlopen");
        void (*function)(int64_t *) = (void (*)(int64_t *))dlsym(library, request.function);
        need(function != 0, "dlsym");
        for (int64_t i = 0; i < request.calls; i++) function(task);
        for (int64_t i = 0; i < request.pieces; i++) {
            for (unsigned char *byte = pages[i] + PAGE; byte < memory[i]; byte++)
                need(*byte == SLACK, "a kernel wrote before a tensor");
            need(fwrite(memory[i], 1, sizes[i], stdout) == (size_t)sizes[i], "write");
            munmap(pages[i], (sizes[i] + PAGE - 1) / PAGE * PAGE + 2 * PAGE);
        }
        fflush(stdout);
    }
    return 0;
}
