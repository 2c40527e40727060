"""Every promise of safety, shown by faults: crashes, errors, interrupts, stops, clocks, damage and hostility."""
