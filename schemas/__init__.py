"""What a record is. Pure code; imports no other package of failsoft."""
