//! Field offsets of the running kernel, from its BTF.
//!
//! Structures are laid out anew in every kernel version and configuration, and some fields have
//! had several names; each is looked up by name, the newest first.

use anyhow::{Context as _, bail};
use etxtbsy_trace_common::Offsets;

use super::features;
use crate::tracer::{features::RingCompletion, layout::Layout};

/// Resolves every offset that the eBPF programs need.
#[allow(clippy::too_many_lines, reason = "one line a field")]
pub fn resolve(kernel: &impl Layout) -> anyhow::Result<Offsets> {
    let at = |structure: &str, fields: &[&str]| offset(kernel, structure, fields);
    let rsrc = at("io_file_table", &["data"]).and_then(|data| {
        Ok((
            at("io_ring_ctx", &["file_table"])? + data,
            at("io_rsrc_data", &["nr"])?,
            at("io_rsrc_data", &["nodes"])?,
            at("io_rsrc_node", &["file_ptr"])?,
        ))
    });
    // Up to 6.12.
    let io_uring_files = at("io_ring_ctx", &["file_table"]).and_then(|table| {
        Ok((table + at("io_file_table", &["files"])?, at("io_ring_ctx", &["nr_user_files"])?))
    });
    let last_arrival = at("task_struct", &["sched_info"])
        .and_then(|info| Ok(info + at("sched_info", &["last_arrival"])?));
    let worker = at("task_struct", &["worker_private"])
        .and_then(|private| Ok((private, at("io_worker", &["cur_work"])?)));
    // `struct io_cqe` begins with the user's data, which stands in the request itself up to 5.18.
    let submissions = at("io_kiocb", &["cqe", "user_data"]).and_then(|data| {
        Ok((data, at("io_ring_ctx", &["sq_sqes"])?, at("io_ring_ctx", &["sq_entries"])?))
    });
    let mappings_deny = features::mappings_deny(kernel);
    let denying = |structure: &str, field: &str| {
        if mappings_deny { at(structure, &[field]) } else { Ok(u32::MAX) }
    };
    // x86_64 names the registers; arm64 has `regs[31]`.
    let argument = |name: &str, nth: u32| match at("pt_regs", &[name]) {
        Ok(register) => Ok(register),
        Err(_) => anyhow::Ok(at("pt_regs", &["regs"])? + nth * 8),
    };
    Ok(Offsets {
        task_task_works: at("task_struct", &["task_works"])?,
        task_files: at("task_struct", &["files"])?,
        task_fs: at("task_struct", &["fs"])?,
        task_mm: at("task_struct", &["mm"])?,
        task_signal: at("task_struct", &["signal"])?,
        task_real_parent: at("task_struct", &["real_parent"])?,
        task_tgid: at("task_struct", &["tgid"])?,
        task_pid: at("task_struct", &["pid"])?,
        task_flags: at("task_struct", &["flags"])?,
        // On x86_64 it marks a 32-bit system call; arm64 has none.
        task_thread_status: at("thread_info", &["status"])
            .and_then(|status| Ok(at("task_struct", &["thread_info"])? + status))
            .unwrap_or(u32::MAX),
        task_stack: at("task_struct", &["stack"])?,
        regs_size: size(kernel, "pt_regs")?,
        task_state: at("task_struct", &["__state", "state"])?,
        task_group_leader: at("task_struct", &["group_leader"])?,
        task_tasks: at("task_struct", &["tasks"])?,
        task_thread_node: at("task_struct", &["thread_node"])?,
        task_comm: at("task_struct", &["comm"])?,
        task_start_time: at("task_struct", &["start_time"])?,
        task_real_cred: at("task_struct", &["real_cred"])?,
        task_thread_pid: at("task_struct", &["thread_pid"])?,
        task_cgroups: at("task_struct", &["cgroups"])?,
        signal_flags: at("signal_struct", &["flags"])?,
        task_on_cpu: at("task_struct", &["on_cpu"]).unwrap_or(u32::MAX),
        task_last_arrival: last_arrival.unwrap_or(u32::MAX),
        task_worker_private: worker.as_ref().map_or(u32::MAX, |(private, _)| *private),
        worker_cur_work: worker.as_ref().map_or(u32::MAX, |(_, work)| *work),
        io_uring_request_work: at("io_kiocb", &["work"]).unwrap_or(u32::MAX),
        io_uring_request_file: at("io_kiocb", &["file"]).unwrap_or(u32::MAX),
        signal_live: at("signal_struct", &["live"])?,
        signal_nr_threads: at("signal_struct", &["nr_threads"])?,
        signal_thread_head: at("signal_struct", &["thread_head"])?,
        cred_uid: at("cred", &["uid"])?,
        pid_level: at("pid", &["level"])?,
        pid_numbers: at("pid", &["numbers"])?,
        upid_size: size(kernel, "upid")?,
        upid_nr: at("upid", &["nr"])?,
        upid_ns: at("upid", &["ns"])?,
        css_set_dfl_cgrp: at("css_set", &["dfl_cgrp"])?,
        cgroup_kn: at("cgroup", &["kn"])?,
        kernfs_node_id: at("kernfs_node", &["id"])?,
        files_count: at("files_struct", &["count"])?,
        files_fdt: at("files_struct", &["fdt"])?,
        fdtable_max_fds: at("fdtable", &["max_fds"])?,
        fdtable_fd: at("fdtable", &["fd"])?,
        fdtable_open_fds: at("fdtable", &["open_fds"])?,
        fdtable_close_on_exec: at("fdtable", &["close_on_exec"])?,
        file_f_inode: at("file", &["f_inode"])?,
        file_f_mode: at("file", &["f_mode"])?,
        file_f_flags: at("file", &["f_flags"])?,
        file_refs: at("file", &["f_ref", "f_count"])?,
        file_refs_one: u32::from(at("file", &["f_ref"]).is_err()),
        file_private_data: at("file", &["private_data"])?,
        file_f_cred: at("file", &["f_cred"])?,
        ovl_file_realfile: at("ovl_file", &["realfile"]).unwrap_or(0),
        file_f_path_mnt: at("file", &["f_path"])? + at("path", &["mnt"])?,
        file_f_path_dentry: at("file", &["f_path"])? + at("path", &["dentry"])?,
        // 6.8 on; 6.1 (a callback_head begins like an llist_node); 5.10 and 5.15.
        file_task_work: at("file", &["f_task_work", "f_llist", "fu_rcuhead"])?,
        // Over the work lies the head by which RCU frees it (up to 6.6), or `f_freeptr` (6.12 on), which
        // is written where slabs have free lists: without `cpu_slab` (7.0 on), sheaves come first.
        file_freed: match (at("file", &["f_rcuhead", "fu_rcuhead"]), at("file", &["f_freeptr"])) {
            (Ok(_), _) => 0,
            (_, Ok(_)) if at("kmem_cache", &["cpu_slab"]).is_ok() => 1,
            _ => 2,
        },
        callback_next: at("callback_head", &["next"])?,
        callback_func: at("callback_head", &["func"])?,
        inode_i_mode: at("inode", &["i_mode"])?,
        socket_sk: at("socket", &["sk"])?,
        sock_family: at("sock", &["__sk_common"])? + at("sock_common", &["skc_family"])?,
        sock_receive_queue: at("sock", &["sk_receive_queue"])?,
        sk_buff_cb: at("sk_buff", &["cb"])?,
        // Not there if unix sockets are a module.
        unix_skb_parms_fp: at("unix_skb_parms", &["fp"]).unwrap_or(u32::MAX),
        scm_fp_list_count: at("scm_fp_list", &["count"])?,
        scm_fp_list_fp: at("scm_fp_list", &["fp"])?,
        io_uring_files: io_uring_files.as_ref().map_or(u32::MAX, |(files, _)| *files),
        io_uring_files_nr: io_uring_files.as_ref().map_or(u32::MAX, |(_, nr)| *nr),
        io_uring_nodes: rsrc.as_ref().map_or(u32::MAX, |(data, _, nodes, _)| data + nodes),
        io_uring_nr: rsrc.as_ref().map_or(0, |(data, nr, _, _)| data + nr),
        io_uring_node_file: rsrc.as_ref().map_or(0, |(_, _, _, file)| *file),
        io_uring_request_opcode: at("io_kiocb", &["opcode"]).unwrap_or(0),
        io_uring_request_context: at("io_kiocb", &["ctx"]).unwrap_or(0),
        io_uring_open_slot: at("io_open", &["file_slot"])
            .and_then(|slot| Ok(at("io_kiocb", &["cmd"])? + slot))
            .unwrap_or(u32::MAX),
        io_uring_cqe_res: match features::ring_completion(kernel) {
            RingCompletion::Cqe => at("io_uring_cqe", &["res"])?,
            RingCompletion::Result | RingCompletion::Unknown => u32::MAX,
        },
        io_uring_user_data: submissions.as_ref().map_or(0, |(data, ..)| *data),
        io_uring_sqes: submissions.as_ref().map_or(u32::MAX, |(_, sqes, _)| *sqes),
        io_uring_sq_entries: submissions.as_ref().map_or(0, |(_, _, entries)| *entries),
        inode_i_ino: at("inode", &["i_ino"])?,
        inode_i_generation: at("inode", &["i_generation"])?,
        inode_i_sb: at("inode", &["i_sb"])?,
        inode_i_flags: at("inode", &["i_flags"])?,
        inode_i_writecount: at("inode", &["i_writecount"])?,
        inode_i_mapping: at("inode", &["i_mapping"])?,
        mapping_i_mmap: at("address_space", &["i_mmap"])?,
        rb_leftmost: at("rb_root_cached", &["rb_leftmost"])?,
        rb_left: at("rb_node", &["rb_left"])?,
        rb_right: at("rb_node", &["rb_right"])?,
        rb_parent: at("rb_node", &["__rb_parent_color"])?,
        vma_rb: at("vm_area_struct", &["shared"])?,
        vma_vm_file: at("vm_area_struct", &["vm_file"])?,
        vma_vm_mm: at("vm_area_struct", &["vm_mm"])?,
        mm_mmap: denying("mm_struct", "mmap")?,
        vma_vm_next: denying("vm_area_struct", "vm_next")?,
        vma_vm_flags: denying("vm_area_struct", "vm_flags")?,
        super_block_s_dev: at("super_block", &["s_dev"])?,
        super_block_s_magic: at("super_block", &["s_magic"])?,
        dentry_d_parent: at("dentry", &["d_parent"])?,
        dentry_d_name_len: at("dentry", &["d_name"])? + at("qstr", &["len"])?,
        dentry_d_name_name: at("dentry", &["d_name"])? + at("qstr", &["name"])?,
        vfsmount_mnt_root: at("vfsmount", &["mnt_root"])?,
        mount_mnt: at("mount", &["mnt"])?,
        mount_mnt_parent: at("mount", &["mnt_parent"])?,
        mount_mnt_mountpoint: at("mount", &["mnt_mountpoint"])?,
        mm_task_size: at("mm_struct", &["task_size"])?,
        mm_exe_file: at("mm_struct", &["exe_file"])?,
        // CONFIG_MEMCG.
        mm_owner: at("mm_struct", &["owner"]).unwrap_or(u32::MAX),
        mm_arg_start: at("mm_struct", &["arg_start"])?,
        mm_arg_end: at("mm_struct", &["arg_end"])?,
        mm_env_end: at("mm_struct", &["env_end"])?,
        fs_pwd_mnt: at("fs_struct", &["pwd"])? + at("path", &["mnt"])?,
        fs_pwd_dentry: at("fs_struct", &["pwd"])? + at("path", &["dentry"])?,
        fs_root_mnt: at("fs_struct", &["root"])? + at("path", &["mnt"])?,
        fs_root_dentry: at("fs_struct", &["root"])? + at("path", &["dentry"])?,
        dentry_d_inode: at("dentry", &["d_inode"])?,
        // `struct hlist_bl_node`: the next node, and what points to this one.
        dentry_d_hash_pprev: at("dentry", &["d_hash"])? + 8,
        dentry_children: at("dentry", &["d_children", "d_subdirs"])?,
        dentry_sibling: at("dentry", &["d_sib", "d_child"])?,
        dentry_children_hlist: u32::from(at("dentry", &["d_children"]).is_ok()),
        dentry_d_name_hash_len: at("dentry", &["d_name"])? + at("qstr", &["hash_len"])?,
        inode_i_link: at("inode", &["i_link"])?,
        mount_mnt_mounts: at("mount", &["mnt_mounts"])?,
        mount_mnt_child: at("mount", &["mnt_child"])?,
        binprm_filename: at("linux_binprm", &["filename"])?,
        binprm_interp: at("linux_binprm", &["interp"])?,
        binprm_file: at("linux_binprm", &["file"])?,
        // x86_64; arm64, where the result of the call overwrites regs[0].
        regs_first: at("pt_regs", &["di", "orig_x0"])?,
        regs_syscall: at("pt_regs", &["orig_ax", "syscallno"])?,
        regs_ip: at("pt_regs", &["ip", "pc"])?,
        regs_sp: at("pt_regs", &["sp"])?,
        regs_fp: argument("bp", 29)?,
        regs_lr: at("pt_regs", &["regs"]).map_or(u32::MAX, |regs| regs + 30 * 8),
        regs_compat_first: at("pt_regs", &["bx"]).unwrap_or(0),
        regs_compat_second: at("pt_regs", &["cx"]).unwrap_or(0),
        regs_second: argument("si", 1)?,
        regs_third: argument("dx", 2)?,
        regs_fourth: argument("r10", 3)?,
        // 6.11 on; 6.6 on; before.
        inode_ctime_sec: at("inode", &["i_ctime_sec", "__i_ctime", "i_ctime"])?,
        inode_ctime_nsec: match at("inode", &["i_ctime_nsec"]) {
            Ok(nsec) => nsec,
            // `struct timespec64`: the seconds have 64 bits everywhere.
            Err(_) => at("inode", &["__i_ctime", "i_ctime"])? + 8,
        },
    })
}

/// The size in bytes of a struct.
fn size(kernel: &impl Layout, name: &str) -> anyhow::Result<u32> {
    kernel.size(name).with_context(|| format!("the kernel's BTF has no struct {name}"))
}

/// The offset in bytes of the first of `fields` that `structure` has.
fn offset(kernel: &impl Layout, structure: &str, fields: &[&str]) -> anyhow::Result<u32> {
    size(kernel, structure)?;
    match fields.iter().find_map(|field| kernel.offset(structure, field)) {
        Some(found) => Ok(found),
        None => bail!("struct {structure} of this kernel has no field {}", fields.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;
    use crate::tracer::layout::{
        Kernel, VMLINUX,
        extract::{Asked, Extract},
    };

    macro_rules! kernels {
        ($($test:ident: $version:literal, $ring:ident, $late:literal, $deny:literal, $preempt:literal;)*) => {$(
            #[test]
            fn $test() {
                let kernel = include_str!(concat!("../../tests/btf/", $version, ".txt"));
                let kernel = Extract::parse(kernel);
                resolve(&kernel).unwrap();
                assert_eq!(features::ring_completion(&kernel), RingCompletion::$ring);
                assert_eq!(features::maps_allocate_late(&kernel), $late);
                assert_eq!(features::mappings_deny(&kernel), $deny);
                assert_eq!(features::preempts_programs(&kernel), $preempt);
            }
        )*};
    }

    kernels! {
        linux_5_10: "5.10", Unknown, false, true, false;
        linux_6_1: "6.1", Result, true, false, false;
        linux_6_12: "6.12", Result, true, false, false;
        linux_6_18: "6.18", Cqe, true, false, false;
        linux_7_2: "7.2", Cqe, true, false, true;
    }

    /// Not every field has the same offset everywhere, or this would test nothing.
    #[test]
    fn kernels_differ() {
        let old = resolve(&Extract::parse(include_str!("../../tests/btf/5.10.txt"))).unwrap();
        let new = resolve(&Extract::parse(include_str!("../../tests/btf/7.2.txt"))).unwrap();
        assert_eq!((old.file_refs_one, new.file_refs_one), (1, 0));
        assert_eq!((old.file_task_work, new.file_task_work), (0, 136));
        assert_eq!((old.task_state, new.task_state), (16, 24));
        assert_eq!((old.file_freed, new.file_freed), (0, 2));
    }

    /// Writes the extract of a kernel, for the tests above:
    /// `BTF=FILE cargo test --release --lib -- --ignored --nocapture extract_of_a_kernel`, which
    /// prints it between two lines; without `BTF`, of the running one.
    #[test]
    #[ignore = "prints what the other tests read"]
    fn extract_of_a_kernel() {
        let path = env::var("BTF").unwrap_or_else(|_| VMLINUX.to_owned());
        let kernel = Kernel::from_file(&path).unwrap();
        let asked = Asked::of(&kernel);
        let resolved = resolve(&asked);
        let late = features::maps_allocate_late(&asked);
        let preempt = features::preempts_programs(&asked);
        println!("--\n{}--", asked.extract());
        println!("{late} {preempt} {:?}", resolved.unwrap());
    }
}
