//! Row by row, on a table without a network.
