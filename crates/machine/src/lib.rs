//! Part of armlet.
