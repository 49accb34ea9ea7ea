"""The claim policy on real workers and a real server: does it load less, and is it fair, where only time is played?"""
