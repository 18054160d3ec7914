//! What user space knows of the kernel before it loads the programs: constants to the verifier.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The offsets of the fields that the programs read, in bytes, from the running kernel's BTF. Named
/// `struct_field`.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub struct Offsets {
    pub task_task_works: u32,
    pub task_files: u32,
    pub task_fs: u32,
    pub task_mm: u32,
    pub task_signal: u32,
    pub task_real_parent: u32,
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_flags: u32,
    /// `thread_info.status`; `u32::MAX` where 32-bit calls are not followed.
    pub task_thread_status: u32,
    pub task_group_leader: u32,
    pub task_stack: u32,
    /// `sizeof(struct pt_regs)`.
    pub regs_size: u32,
    /// `__state`; up to 5.13 `state`, whose lower half is read.
    pub task_state: u32,
    pub task_tasks: u32,
    pub task_thread_node: u32,
    pub task_comm: u32,
    pub task_start_time: u32,
    pub task_real_cred: u32,
    pub task_thread_pid: u32,
    pub task_cgroups: u32,
    pub signal_flags: u32,
    /// `u32::MAX` where they are not known.
    pub task_on_cpu: u32,
    pub task_last_arrival: u32,
    pub task_worker_private: u32,
    /// `io_worker.cur_work`, and `io_kiocb.work` and `io_kiocb.file`; `u32::MAX` if not known.
    pub worker_cur_work: u32,
    pub io_uring_request_work: u32,
    pub io_uring_request_file: u32,
    pub signal_live: u32,
    pub signal_nr_threads: u32,
    pub signal_thread_head: u32,
    pub cred_uid: u32,
    pub pid_level: u32,
    pub pid_numbers: u32,
    /// `sizeof(struct upid)`.
    pub upid_size: u32,
    pub upid_nr: u32,
    pub upid_ns: u32,
    pub css_set_dfl_cgrp: u32,
    pub cgroup_kn: u32,
    pub kernfs_node_id: u32,
    pub files_count: u32,
    pub files_fdt: u32,
    pub fdtable_max_fds: u32,
    pub fdtable_fd: u32,
    pub fdtable_open_fds: u32,
    pub fdtable_close_on_exec: u32,
    pub file_f_inode: u32,
    pub file_f_mode: u32,
    pub file_f_flags: u32,
    /// `f_count` up to 6.12, `f_ref` since.
    pub file_refs: u32,
    /// The value of a single reference there: 1 in `f_count`, 0 in `f_ref`.
    pub file_refs_one: u32,
    pub file_private_data: u32,
    /// The credentials that it was opened with.
    pub file_f_cred: u32,
    /// 0, the first field, where BTF does not have the struct: before 6.13, or of a module.
    pub ovl_file_realfile: u32,
    pub file_f_path_mnt: u32,
    pub file_f_path_dentry: u32,
    /// The `callback_head` that waits in `task_works`; its name changed over the versions.
    pub file_task_work: u32,
    /// How a freed `struct file` differs from one that is not: 0, by the function of its work (freed by
    /// RCU, up to 6.6); 1, by the link of its work (`f_freeptr`, 6.12 to 6.19); 2, not at all.
    pub file_freed: u32,
    pub callback_next: u32,
    pub callback_func: u32,
    pub inode_i_ino: u32,
    pub inode_i_generation: u32,
    pub inode_i_sb: u32,
    pub inode_i_writecount: u32,
    pub inode_i_flags: u32,
    pub inode_i_mapping: u32,
    /// `address_space.i_mmap`, `rb_root_cached.rb_leftmost`.
    pub mapping_i_mmap: u32,
    pub rb_leftmost: u32,
    pub rb_left: u32,
    pub rb_right: u32,
    pub rb_parent: u32,
    /// `vm_area_struct.shared.rb`.
    pub vma_rb: u32,
    pub vma_vm_file: u32,
    pub vma_vm_mm: u32,
    /// The list of a process's mappings, where those of its program deny writing (up to 5.14);
    /// `mm_mmap` is `u32::MAX` where its `exe_file` does.
    pub mm_mmap: u32,
    pub vma_vm_next: u32,
    pub vma_vm_flags: u32,
    pub super_block_s_dev: u32,
    pub super_block_s_magic: u32,
    pub dentry_d_parent: u32,
    pub dentry_d_name_name: u32,
    pub dentry_d_name_len: u32,
    pub vfsmount_mnt_root: u32,
    pub mount_mnt: u32,
    pub mount_mnt_parent: u32,
    pub mount_mnt_mountpoint: u32,
    pub mm_exe_file: u32,
    pub mm_task_size: u32,
    /// `u32::MAX` where the kernel does not know it (without CONFIG_MEMCG).
    pub mm_owner: u32,
    pub mm_arg_start: u32,
    pub mm_arg_end: u32,
    pub fs_pwd_mnt: u32,
    pub fs_pwd_dentry: u32,
    pub fs_root_mnt: u32,
    pub fs_root_dentry: u32,
    pub dentry_d_inode: u32,
    /// `dentry.d_hash.pprev`: 0 of an entry that the kernel no longer finds by its name.
    pub dentry_d_hash_pprev: u32,
    /// The list of a directory's entries, and their link in it: an hlist from 6.8 on.
    pub dentry_children: u32,
    pub dentry_sibling: u32,
    pub dentry_children_hlist: u32,
    /// `dentry.d_name.hash_len`.
    pub dentry_d_name_hash_len: u32,
    pub inode_i_link: u32,
    pub mount_mnt_mounts: u32,
    pub mount_mnt_child: u32,
    pub binprm_filename: u32,
    pub binprm_interp: u32,
    pub binprm_file: u32,
    /// The first argument of a system call at its exit, in `struct pt_regs`.
    pub regs_first: u32,
    /// Of unix sockets and their queues.
    pub inode_i_mode: u32,
    pub socket_sk: u32,
    pub sock_family: u32,
    pub sock_receive_queue: u32,
    pub sk_buff_cb: u32,
    /// `u32::MAX` if it is not known.
    pub unix_skb_parms_fp: u32,
    pub scm_fp_list_count: u32,
    pub scm_fp_list_fp: u32,
    /// Of io_uring; `io_uring_nodes` is `u32::MAX` where its tables have another shape than since 6.13:
    /// `io_uring_files`, and `io_uring_files_nr`, up to 6.12, `u32::MAX` where they have neither.
    pub io_uring_files: u32,
    pub io_uring_files_nr: u32,
    pub io_uring_nodes: u32,
    pub io_uring_nr: u32,
    pub io_uring_node_file: u32,
    /// `io_kiocb.opcode`.
    pub io_uring_request_opcode: u32,
    /// `io_kiocb.ctx`, and `io_open.file_slot` in `io_kiocb.cmd`; that is `u32::MAX` if it is not known.
    pub io_uring_request_context: u32,
    pub io_uring_open_slot: u32,
    /// `u32::MAX` where the tracepoint of a completion has the result itself.
    pub io_uring_cqe_res: u32,
    /// `io_kiocb.cqe.user_data`, and the ring's submissions; `io_uring_sqes` is `u32::MAX` if one of
    /// them is not known.
    pub io_uring_user_data: u32,
    pub io_uring_sqes: u32,
    pub io_uring_sq_entries: u32,
    pub regs_second: u32,
    pub mm_env_end: u32,
    pub regs_third: u32,
    pub regs_fourth: u32,
    /// Seconds and nanoseconds of `inode.i_ctime`.
    pub inode_ctime_sec: u32,
    pub inode_ctime_nsec: u32,
    /// The number of the system call.
    pub regs_syscall: u32,
    /// The program counter, the stack pointer and the frame pointer; `regs_lr` is `u32::MAX` where there is no link
    /// register (x86_64).
    pub regs_ip: u32,
    pub regs_sp: u32,
    pub regs_fp: u32,
    pub regs_lr: u32,
    /// The first arguments of a 32-bit system call.
    pub regs_compat_first: u32,
    pub regs_compat_second: u32,
}

/// The numbers of the system calls that the programs know.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub struct Calls {
    pub openat: i32,
    pub openat2: i32,
    pub open_by_handle_at: i32,
    pub execveat: i32,
    pub execve: i32,
    pub close: i32,
    pub truncate: i32,
    pub acct: i32,
    /// `open` and `creat`; −1 where there are no such calls.
    pub open: i32,
    pub creat: i32,
    /// `fork` and `vfork`; −1 where there are no such calls.
    pub fork: i32,
    pub vfork: i32,
    pub clone: i32,
    pub clone3: i32,
    pub recvmsg: i32,
    pub recvmmsg: i32,
    pub pidfd_getfd: i32,
}

/// The placeholder in the programs for the BTF id of `bpf_rdonly_cast`: a helper's number that no kernel has.
/// User space replaces it.
pub const CAST_FUNCTION: u32 = 0x007a_7a7a;

/// The same for the BTF id of the struct that is cast to.
pub const CAST_WORDS: u32 = 0x007b_7b7b;
