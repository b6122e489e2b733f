"""JoyImage Edit and JoyImage Edit Plus."""
