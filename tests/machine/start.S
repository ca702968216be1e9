/* SPDX-License-Identifier: Apache-2.0 */
/* The payload's entry by PVH (32-bit, paging off, ebx: start_info): long mode with 4 GiB mapped to themselves, a stack,
 * then payload_main(start_info). And the way back down to real mode. */
	.section .note.pvh, "a", @note
	.long 4, 8, 18 /* name, descriptor, XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad start_pvh

	.section .text.start, "ax", @progbits
	.code32
	.globl start_pvh
start_pvh:
	cld
	mov %ebx, %edi
	/* One table of 2 MiB pages a GiB, four of them. */
	mov $directories, %eax
	xor %ecx, %ecx
1:	mov %ecx, %edx
	shl $21, %edx
	or $0x83, %edx /* present, writable, large */
	mov %edx, (%eax, %ecx, 8)
	movl $0, 4(%eax, %ecx, 8)
	inc %ecx
	cmp $2048, %ecx
	jne 1b
	movl $directory_pointers + 3, level4
	mov $directories + 3, %eax
	mov %eax, directory_pointers
	add $4096, %eax
	mov %eax, directory_pointers + 8
	add $4096, %eax
	mov %eax, directory_pointers + 16
	add $4096, %eax
	mov %eax, directory_pointers + 24

	mov $level4, %eax
	mov %eax, %cr3
	mov %cr4, %eax
	or $0x620, %eax /* PAE, OSFXSR, OSXMMEXCPT */
	mov %eax, %cr4
	mov $0xc0000080, %ecx /* EFER */
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	lgdt table_pointer
	ljmp $8, $start_long

	.code64
start_long:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	lea stack_top(%rip), %rsp
	xor %ebp, %ebp
	call payload_main
	cli
2:	hlt
	jmp 2b

	/* void go_real(void): copies the code below to 0x8000, leaves long mode and protected mode, and goes there. */
	.globl go_real
go_real:
	lea real_code(%rip), %rsi
	mov $0x8000, %edi
	mov $real_code_end - real_code, %ecx
	rep movsb
	ljmp *far_compatible(%rip)

	.code32
compatible:
	mov $32, %eax /* a 16-bit data segment */
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov %cr0, %eax
	and $0x7fffffff, %eax
	mov %eax, %cr0 /* paging off: long mode is left */
	mov $0xc0000080, %ecx
	rdmsr
	and $~0x100, %eax
	wrmsr
	ljmp $40, $0x8000 /* a 16-bit code segment */

	.code16
real_code:
	mov %cr0, %eax
	and $~1, %eax
	mov %eax, %cr0
	ljmp $0, $0x8000 + (real_mode - real_code)
real_mode:
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %ss
	mov $0x7c00, %sp
	mov $0x3f8, %dx
	mov $'R', %al
	out %al, %dx
	mov $'\n', %al
	out %al, %dx
	mov $0xfe, %al
	out %al, $0x64
3:	hlt
	jmp 3b
real_code_end:

	.code64
	.globl interrupt_entry
interrupt_entry:
	push %rax
	push %rcx
	push %rdx
	push %rsi
	push %rdi
	push %r8
	push %r9
	push %r10
	push %r11
	cld
	call handle_interrupt
	pop %r11
	pop %r10
	pop %r9
	pop %r8
	pop %rdi
	pop %rsi
	pop %rdx
	pop %rcx
	pop %rax
	iretq

	.section .data
	.balign 8
table:
	.quad 0
	.quad 0x00af9b000000ffff /* 8: long code */
	.quad 0x00cf93000000ffff /* 16: data */
	.quad 0x00cf9b000000ffff /* 24: 32-bit code */
	.quad 0x000093000000ffff /* 32: 16-bit data */
	.quad 0x00009b000000ffff /* 40: 16-bit code */
table_end:
table_pointer:
	.word table_end - table - 1
	.quad table
far_compatible:
	.long compatible
	.word 24

	.section .bss, "aw", @nobits
	.balign 4096
level4:
	.skip 4096
directory_pointers:
	.skip 4096
directories:
	.skip 4 * 4096
	.skip 16384
stack_top:
	.section .note.GNU-stack, "", @progbits
