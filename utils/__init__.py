"""The course's instruments: one small module each, nothing imported until it is asked for."""
