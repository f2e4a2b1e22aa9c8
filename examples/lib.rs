//! Runnable examples of embedding the urunc libraries; each file beside this one is one example.
