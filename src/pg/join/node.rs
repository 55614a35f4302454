//! The node of the executor: its functions, and how it is made of a plan.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::execute::{begin_custom_scan, end_custom_scan, exec_custom_scan, re_scan_custom_scan, JoinNode};
use super::explain::explain_custom_scan;
use super::plan::NAME;

/// Tables of functions, which hold a static name.
pub struct Static<T>(pub T);

// SAFETY: nothing in them is ever changed.
unsafe impl<T> Sync for Static<T> {}

/// What makes the node of a plan.
pub static SCAN: Static<pg_sys::CustomScanMethods> = Static(pg_sys::CustomScanMethods {
    CustomName: NAME.as_ptr(),
    CreateCustomScanState: Some(create_custom_scan_state),
});

static METHODS: Static<pg_sys::CustomExecMethods> = Static(pg_sys::CustomExecMethods {
    CustomName: NAME.as_ptr(),
    BeginCustomScan: Some(begin_custom_scan),
    ExecCustomScan: Some(exec_custom_scan),
    EndCustomScan: Some(end_custom_scan),
    ReScanCustomScan: Some(re_scan_custom_scan),
    MarkPosCustomScan: None,
    RestrPosCustomScan: None,
    EstimateDSMCustomScan: None,
    InitializeDSMCustomScan: None,
    ReInitializeDSMCustomScan: None,
    InitializeWorkerCustomScan: None,
    ShutdownCustomScan: None,
    ExplainCustomScan: Some(explain_custom_scan),
});

/// Tells PostgreSQL of the plan's node. Called once, from `_PG_init`.
pub fn init() {
    // SAFETY: the backend has one thread at this point, and the functions are static.
    unsafe { pg_sys::RegisterCustomScanMethods(&raw const SCAN.0) };
}

#[pg_guard]
unsafe extern "C-unwind" fn create_custom_scan_state(_plan: *mut pg_sys::CustomScan) -> *mut pg_sys::Node {
    // SAFETY: a node is memory that is zeroed, and has its tag.
    unsafe {
        let node = pg_sys::palloc0(std::mem::size_of::<JoinNode>()).cast::<JoinNode>();
        (*node).scan.ss.ps.type_ = pg_sys::NodeTag::T_CustomScanState;
        (*node).scan.methods = &raw const METHODS.0;
        node.cast()
    }
}
