/* The least a C program can do with the library. */
#include <stdio.h>

#include <spark_backbone.h>

int main(void) {
    printf("%s on libtorch %s\n", spark_library_version(), spark_libtorch_version());
    return spark_abi_version() == SPARK_ABI_VERSION ? 0 : 1;
}
